"""The models, each in a file of its own that begins with its equations: `esmm`. The rest are their parts."""
