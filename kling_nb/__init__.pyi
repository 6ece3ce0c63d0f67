# The public names, once: type checkers read them here, and the package loads them from here.

import typing

from .engine.run import Run as Run
from .engine.run import Video as Video
from .engine.runs import Runs as Runs
from .errors import BlockedError as BlockedError
from .errors import BudgetError as BudgetError
from .errors import ConsentError as ConsentError
from .errors import DetachedError as DetachedError
from .errors import KeyMissingError as KeyMissingError
from .errors import KlingError as KlingError
from .errors import LedgerError as LedgerError
from .errors import ModeratedError as ModeratedError
from .errors import NotCachedError as NotCachedError
from .errors import ProviderError as ProviderError
from .errors import RunCanceledError as RunCanceledError
from .errors import RunFailedError as RunFailedError
from .errors import RunLostError as RunLostError
from .errors import SettingsError as SettingsError
from .errors import StoreError as StoreError
from .errors import TransportError as TransportError
from .errors import UnpricedError as UnpricedError
from .errors import UnsupportedError as UnsupportedError
from .errors import UsageError as UsageError
from .errors import WaitTimeoutError as WaitTimeoutError
from .exports.export import export as export
from .loop import run_sync as run_sync
from .notebook.form.form import form as form
from .notebook.sweeps import sweep as sweep
from .notebook.viewers.compare import compare as compare
from .notebook.viewers.gallery import gallery as gallery
from .notebook.viewers.player import play as play
from .notebook.viewers.rate import rate as rate
from .ratings.ratings import Ratings as Ratings
from .records.money import Estimate as Estimate
from .records.receipt_schema import receipt_schema as receipt_schema
from .records.request import Shot as Shot
from .records.request import TextToVideo as TextToVideo
from .records.run import MediaFacts as MediaFacts
from .records.run import RunRecord as RunRecord
from .records.run import RunStatus as RunStatus
from .recovery.adopt import adopt as adopt
from .recovery.resolve import resolve as resolve
from .recovery.restore import restore as restore
from .recovery.verify import verify_folder as verify_folder
from .session.api import connect as connect
from .session.api import estimate as estimate
from .session.api import find as find
from .session.api import generate as generate
from .session.api import resume as resume
from .session.api import runs as runs
from .session.api import spend as spend
from .session.api import submit as submit
from .session.processes import run_one as run_one
from .session.spend import Spend as Spend
from .spending.reconcile import costs as costs
from .sweeps.sweep import Sweep as Sweep

__version__: str
last: Run | Runs | None

def load_ipython_extension(ip: typing.Any) -> None: ...
def unload_ipython_extension(ip: typing.Any) -> None: ...
