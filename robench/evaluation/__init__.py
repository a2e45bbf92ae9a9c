"""From a request to a finished run: resolve, load, check, plan, execute, keep."""

from robench.evaluation._display import display
from robench.evaluation._execute import execute
from robench.evaluation._prepare import Prepared, prepare
from robench.evaluation._settings import Settings
from robench.evaluation._tables import GALLERY

__all__ = ["GALLERY", "Prepared", "Settings", "display", "execute", "prepare"]
