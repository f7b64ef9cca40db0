"""How far the building of a store is, on standard error."""

from __future__ import annotations

from bertfast._bertfast import StoreWriter
from bertfast.file_progress import StatusLine, remaining
from bertfast.pretraining.inputs import Part


class BuildProgress:
    """How far a build is."""

    def __init__(self, parts: list[Part], writer: StoreWriter, line: StatusLine) -> None:
        self._writer, self._line = writer, line
        self._total, self._done = sum(part.size for part in parts), 0
        self._first: int | None = None
        self._sentences = writer.num_sentences
        if writer.position is not None:
            line.say(f"going on behind {self._sentences:,} sentences")

    def show(self, read: int) -> None:
        """So many bytes of a part are done."""
        done = self._done + read
        if self._first is None:
            self._first = 0 if self._sentences == 0 else done
        if not self._line.is_due():
            return
        elapsed, new = self._line.elapsed, done - self._first
        fraction = new / max(self._total - self._first, 1)
        self._line.show(
            f"{self._writer.num_tokens:,} tokens, {new / elapsed / 1e6:,.1f} MB/s, "
            f"{done / max(self._total, 1):.0%}, {remaining(elapsed, fraction)} left"
        )

    def part_done(self, part: Part) -> None:
        """A part is done."""
        self._done += part.size
