"""Write docs/options.md: every option of a configuration file, from the classes that read it.

make docs        (the same as: python -m scripts.options_doc)
"""

from pathlib import Path

from pydantic import BaseModel

from cli.arguments import CommandParser
from cli.option_help import Option, options_of
from esmm.config import RUN_SECTIONS
from esmm.registry.config import PromotionConfig
from jobs.evaluation.config import EvaluateConfig
from jobs.profiling.config import ProfileConfig
from jobs.samples_config import SamplesConfig

PATH = Path(__file__).resolve().parents[1] / "docs" / "options.md"
SECTIONS: dict[str, type[BaseModel]] = {
    "samples": SamplesConfig,
    "profile": ProfileConfig,
    "evaluate": EvaluateConfig,
    **RUN_SECTIONS,
    "promotion": PromotionConfig,
}

HEAD = """# Options

`make docs` writes this page from the configuration classes. The same as text:

    python -m jobs.build_samples --help-options      # sections samples and profile
    python -m jobs.evaluate --help-options           # section evaluate
    python -m esmm.registry decide --help-options    # section promotion
    python -m esmm.train --help-options              # all others

One YAML file configures a whole run, see [configs/](../configs). `--set train.epochs=2` changes one option of
a training. Every option has a default, so an empty file is a configuration.
"""
TABLE = "| option | values | default | meaning |\n|---|---|---|---|\n"


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *map(_section, SECTIONS)])


def _section(name: str) -> str:
    rows = "".join(map(_row, options_of(name, SECTIONS[name])))
    return f"## {name}\n\n{TABLE}{rows}"


def _row(option: Option) -> str:
    values, meaning = (text.replace("|", r"\|") for text in (option.values, option.meaning))
    return f"| `{option.name}` | {values} | `{option.default}` | {meaning} |\n"


if __name__ == "__main__":
    CommandParser("scripts.options_doc", __doc__).parse_args()
    PATH.write_text(page())
