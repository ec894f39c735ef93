"""Where files lie and how they get there whole: file systems, HDFS, publishing, locks, JSON files."""
