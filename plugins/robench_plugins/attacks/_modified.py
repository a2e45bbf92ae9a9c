"""What attack modifiers have in common: what is asked of the attack inside, and every stage of a schedule modified."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import Tensor

    from robench import Attack, Classifier, CompositeAttack, Norm, Outcome, RandomizedClassifier, Threat
    from robench.contracts import Access

__all__ = ["Modified", "ModifiedStages", "named", "tireless"]


@dataclass(frozen=True)
class Modified:
    """An attack, or a schedule of attacks, behind a modifier; what it says of itself is what the one inside says."""

    attack: Any

    @property
    def per_eps(self) -> bool:
        """As the attack's own."""
        return bool(getattr(self.attack, "per_eps", True))

    @property
    def access(self) -> Access:
        """As the attack's own."""
        return cast("Access", getattr(self.attack, "access", "gradients"))

    def applies(self, classifier: Classifier | RandomizedClassifier, norm: Norm) -> str | None:
        """Return None, or why the attack cannot run on what it would be handed."""
        applies = getattr(self.attack, "applies", None)
        return cast("str | None", applies(self.seen(classifier), norm)) if applies else None

    def seen(self, classifier: Classifier | RandomizedClassifier) -> Classifier:
        """Return what the attack, or the schedule, is handed for `classifier`."""
        return cast("Classifier", classifier)


class ModifiedStages(Modified):
    """A schedule whose stages are modified one by one."""

    def stage(self, spec: str, attack: Attack) -> tuple[str, Attack]:
        """Return the name and the attack of a stage, modified."""
        raise NotImplementedError

    def stages(
        self, classifier: Classifier | RandomizedClassifier, threat: Threat
    ) -> Generator[tuple[str, Attack, Tensor | None], Outcome, None]:
        """Yield the schedule's stages, each modified, and hand their outcomes back to it."""
        schedule = cast("CompositeAttack", self.attack).stages(self.seen(classifier), threat)
        try:
            spec, attack, mask = next(schedule)
            while True:
                outcome = yield *self.stage(spec, attack), mask
                spec, attack, mask = schedule.send(outcome)
        except StopIteration:
            return


def named(name: str, modifier: Any) -> str:
    """Return a modifier's canonical spec: its name and the parameters that differ from their defaults, sorted."""
    given = {
        one.name: getattr(modifier, one.name)
        for one in dataclasses.fields(modifier)
        if getattr(modifier, one.name) != one.default
    }
    items = [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in given.items()]
    return f"{name}:{','.join(sorted(items))}" if items else name


def tireless(attack: Any) -> Any:
    """Return the attack without its early exit, where it, or one that it modifies, has one."""
    if isinstance(attack, Modified):
        return dataclasses.replace(attack, attack=tireless(attack.attack))
    if dataclasses.is_dataclass(attack) and any(field.name == "early_exit" for field in dataclasses.fields(attack)):
        return dataclasses.replace(cast("Any", attack), early_exit=False)
    return attack
