"""Columns of a text table."""

from cli.text_table import aligned, with_rule


def test_columns_are_aligned() -> None:
    rows = [("task", "over", "AUC"), ("CTR", "all", "0.7"), ("CTCVR", "clicked", "0.12345")]
    assert aligned(rows, left=2) == [
        "task   over         AUC",
        "CTR    all          0.7",
        "CTCVR  clicked  0.12345",
    ]


def test_a_rule_is_as_wide_as_the_widest_line() -> None:
    assert with_rule(aligned([("a", "b"), ("x", "12")])) == ["a   b", "-----", "x  12"]
