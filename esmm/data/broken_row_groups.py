"""Row groups that cannot be read: what is left out, how much that may be, and what the log says of it."""

import logging

from cli.errors import InputError
from esmm.data.row_group import Rows, missing_rows
from esmm.data.sample_check import REPAIR, ReplacedError, is_damage, unreadable
from esmm.data.schedule import RowGroup, Window

log = logging.getLogger(__name__)

SHIFTED = "some impressions of the row groups beside it may come twice in this epoch, or not at all."
STAYS_OUT = "readable again, but the rest of its window goes on without it. The next epoch has it."


class BrokenRowGroups:
    """What one rank has to do without.

    allowed: leave out row groups that are damaged, else they stop the run. max_share: of the samples'
    impressions, that may be left out. skipped: the row groups that were, so far. left_out: those that the
    epoch's windows lack, also by `Position.left_out`; to be set when an epoch begins or goes on.
    """

    def __init__(self, folder: str, groups: list[RowGroup], *, allowed: bool, max_share: float) -> None:
        self.folder = folder
        self.groups = groups
        self.num_impressions = sum(group.num_impressions for group in groups)
        self.allowed = allowed
        self.max_share = max_share
        self.skipped: set[RowGroup] = set()
        self.left_out: set[RowGroup] = set()

    def lacked_by(self, windows: tuple[Window, ...]) -> list[int]:
        """Numbers of the row groups that those of the windows lack that have been begun."""
        begun = [window for window in windows if window.skip]
        lacking = {group for window in begun for group in window.groups if group in self.left_out}
        return [number for number, group in enumerate(self.groups) if group in lacking]

    def check(self, window: Window, group: RowGroup, content: Rows | Exception) -> Rows:
        """The content of a row group, or what stands in for it."""
        lacked = window.skip > 0 and group in self.left_out
        if isinstance(content, Exception):
            error = unreadable(self.folder, group, content)
            if not (self.allowed and is_damage(content)):
                raise error
            if window.skip and len(window.groups) > 1 and not lacked:
                log.warning("%s: broken since its window was begun: %s", group.file, SHIFTED)
            return self._leave_out(group, str(error))
        if (content.num_contexts, content.num_impressions) != (group.num_rows, group.num_impressions):
            raise ReplacedError(self.folder, group.file)
        if lacked:
            return self._leave_out(group, f"{group.file}, row group {group.index}: {STAYS_OUT}")
        self.left_out.discard(group)
        return content

    def _leave_out(self, group: RowGroup, why: str) -> Rows:
        if group not in self.skipped:
            log.warning("skipped with its %d impressions: %s", group.num_impressions, why)
        self.skipped.add(group)
        self.left_out.add(group)
        self.require_enough(sum(group.num_impressions for group in self.skipped))
        return missing_rows(group.num_rows, group.num_impressions)

    def require_enough(self, skipped: int) -> None:
        """`InputError` where more impressions than `max_share` of the samples are left out."""
        if skipped > self.max_share * self.num_impressions:
            raise InputError(
                f"{self.folder}: expected at most loader.max_broken_share ({self.max_share:g}) of the "
                f"impressions in row groups that cannot be read, found {skipped} of {self.num_impressions}. "
                f"{REPAIR}"
            )
