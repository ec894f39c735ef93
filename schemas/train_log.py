"""The contract of `train.jsonl`, the log of a training run: one JSON object per line.

kind tells the three apart: `train` is the steps since the line before, `validation` one inside an epoch,
`epoch` the one at its end. All numbers are those of all workers together. Logs of the first releases have
fewer keys.
"""

from typing import Literal, NotRequired, TypedDict

LOG_NAME = "train.jsonl"


class Scores(TypedDict, total=False):
    """What a validation finds: AUCs are null where a class is missing."""

    auc_ctr: float | None
    auc_cvr: float | None  # over clicked impressions
    auc_ctcvr: float | None
    skipped_validation_impressions: int


class LogEntry(Scores):
    """One line; those of kind `validation` and `epoch` have the scores."""

    kind: Literal["train", "validation", "epoch"]
    epoch: int  # from 1 on
    step: int  # since the beginning of the run

    # train: means over the impressions since the line before; natural logarithm
    loss_ctr: NotRequired[float]
    loss_ctcvr: NotRequired[float]
    loss_cvr: NotRequired[float]  # of models that have one
    loss_ctavr: NotRequired[float]  # of models that learn from actions
    loss_auxiliary: NotRequired[float]  # of models that have one
    grad_norm: NotRequired[float]  # of the last step, before it was clipped
    impressions_per_second: NotRequired[float]
    loader_share: NotRequired[float]  # of the time, in which the workers waited for data
    skipped_impressions: NotRequired[int]  # that lay in row groups that could not be read
    learning_rate_dense: NotRequired[float]
    learning_rate_sparse: NotRequired[float]

    train_seconds: NotRequired[float]  # epoch: of its steps alone
