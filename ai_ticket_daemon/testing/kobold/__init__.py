"""A simulated KoboldCPP, 1.76 or 1.115: the real one's wire behaviour, with faults on demand."""

from __future__ import annotations

from .control import serve_control
from .faults import SCRIPTS, Faults, ScriptedAnswer
from .generate import answer_mark, expected_completion
from .observe import GenerationRecord, Observations
from .server import SimulatedKobold, open_simulated_kobold
from .settings import VERSIONS, KoboldSettings

__all__ = [
    "SCRIPTS",
    "VERSIONS",
    "Faults",
    "GenerationRecord",
    "KoboldSettings",
    "Observations",
    "ScriptedAnswer",
    "SimulatedKobold",
    "answer_mark",
    "expected_completion",
    "open_simulated_kobold",
    "serve_control",
]
