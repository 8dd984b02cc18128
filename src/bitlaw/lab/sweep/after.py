"""What is done to a model once it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..corpus import Text, Windows, spread_windows
from ..model import Loaded, save_model
from ..quantize import Setting
from .ladder import SweepConfig


@dataclass(frozen=True)
class After:
    """The ways in which trained models are quantised, and where they are kept.

    Attributes:
        settings: method and formats of each.
        low_settings: the same for models that were trained in low precision.
        calibration_tokens: text that some of these look at.
        models: where models are kept; None means nowhere.
        low: whether those that were trained in low precision are kept too.
    """

    settings: tuple[Setting, ...] = ()
    calibration_tokens: int = 0
    models: Path | None = None
    low: bool = False
    low_settings: tuple[Setting, ...] = ()

    @classmethod
    def of(cls, config: SweepConfig, folder: Path) -> After:
        """What a sweep's configuration asks for; models go below a folder."""

        def settings(formats: tuple[str, ...], methods: tuple[str, ...]) -> tuple[Setting, ...]:
            return tuple(Setting.of(method, name) for name in formats for method in methods)

        return cls(
            settings(config.post_formats, config.post_methods),
            config.calibration_tokens,
            (folder / "models").absolute() if config.keep_models else None,
            config.keep_low,
            settings(config.low_post_formats, config.low_post_methods or config.post_methods),
        )

    def row_id(self, parent: str, setting: Setting) -> str:
        """Id of the row of a model that was quantised in a setting."""
        looked = [str(self.calibration_tokens)] if setting.calibrated else []
        return "-".join([parent, *setting.name.replace(",", "").split(), *looked])

    def look_at(self, text: Text, seq_len: int) -> Windows | None:
        """The windows of calibration text, if any setting looks at one.

        Raises:
            DataError: the text is too short.
        """
        calibrated = any(setting.calibrated for setting in self.settings + self.low_settings)
        return spread_windows(text, self.calibration_tokens, seq_len) if calibrated else None

    def keep(self, loaded: Loaded) -> None:
        """Write a model to a folder named after its row, if models are kept, unless that is there."""
        if self.models is not None and not (self.models / loaded.row["id"]).exists():
            save_model(loaded, self.models / loaded.row["id"])
