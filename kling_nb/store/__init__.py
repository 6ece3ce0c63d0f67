"""Where clips and their sidecars are kept: `folder` keeps, `sidecars` reads back, `names` names.

Invariants: those of the three files; from outside only this package is imported.
"""

from kling_nb.probe import NotVideoError
from kling_nb.store.folder import ROOM_BYTES, Store
from kling_nb.store.names import file_stem, relative_src, slug
from kling_nb.store.sidecars import MAX_SIDECARS

__all__ = ["MAX_SIDECARS", "ROOM_BYTES", "NotVideoError", "Store", "file_stem", "relative_src", "slug"]
