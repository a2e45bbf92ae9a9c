"""Which attacks and certifiers run, and about which function: those asked for, or the defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from robench.classifier import Counted, is_random, is_smoothed, merely_draws
from robench.contracts import Attack, AttackModifier, Certifier
from robench.errors import InputError
from robench.evaluation._settings import Settings
from robench.loading import Subject, python_name, wrapped
from robench.params import describe
from robench.regions import RegionKind
from robench.registry import Part, Plugins
from robench.runner import Evaluator
from robench.threat import Norm

__all__ = ["Asked", "Choice", "Chosen", "choose"]


@dataclass(frozen=True)
class Asked:
    """What evaluators must apply to, besides the classifier: the norm, and regions where the data come with them."""

    norm: Norm
    regions: RegionKind | None = None


@dataclass(frozen=True)
class Chosen:
    """An evaluator and what the manifest says about it."""

    evaluator: Evaluator
    full: str
    parts: tuple[Part, ...]
    default: bool


@dataclass(frozen=True)
class Choice:
    """The evaluators of one run, attacks first, and why default attacks and cheap certifiers were left out.

    `wrapper` is what a certifier put behind the model that was asked for; `notes` are lines that the user should see.
    """

    subject: Subject
    evaluators: tuple[Chosen, ...]
    skipped: dict[str, str]
    wrapper: str = ""
    notes: tuple[str, ...] = ()


def choose(plugins: Plugins, settings: Settings, subject: Subject, asked: Asked) -> list[Choice]:
    """Return what runs about `subject`, and about each function that a certifier makes of it (`Certifier.wraps`).

    Attacks run about each of these functions that they apply to. An attack that asks for one function meets a
    classifier that draws through the default attack modifier, in its name too. Raises InputError where nothing is left
    to run, or where something asked for applies to none of the functions.
    """
    certifiers, skipped = _certifiers(plugins, settings, subject, asked)
    groups: dict[str, list[Chosen]] = {"": []}
    for one in certifiers:
        groups.setdefault(_wrapper(one.evaluator, subject), []).append(one)
    about = {spec: wrapped(subject, plugins.resolve("wrappers", spec)) if spec else subject for spec in groups}
    attacks = {spec: _attacks(plugins, settings, one, asked) for spec, one in about.items()}
    why = {
        spec: [_inapplicable(one.evaluator, about[spec], asked) for one in found]
        for spec, (found, _) in attacks.items()
    }
    choices = []
    for spec, mine in groups.items():
        given, left_out = attacks[spec]
        if len(groups) > 1 and settings.attacks is not None:
            # What applies to none of the functions stays, and is complained about.
            somewhere = [None in reasons for reasons in zip(*why.values(), strict=True)]
            rows = list(zip(given, why[spec], somewhere, strict=True))
            given = [one for one, reason, used in rows if reason is None or not used]
            left_out = {**left_out, **{one.evaluator.spec: reason for one, reason, used in rows if reason and used}}
        chosen = [*given, *mine]
        if chosen or len(groups) == 1:
            _check(plugins, about[spec], chosen, asked)
            notes = _costly(plugins, about[spec], asked) if settings.certifiers is None and not mine else ()
            choices.append(Choice(about[spec], tuple(chosen), {**left_out, **({} if spec else skipped)}, spec, notes))
    return choices


def _check(plugins: Plugins, subject: Subject, chosen: Sequence[Chosen], asked: Asked) -> None:
    """Raise InputError unless these evaluators can make a run about `subject`."""
    if not chosen:
        if merely_draws(subject.classifier):
            raise InputError("there is nothing to run, as no certifier applies: leave out -a none")
        if asked.regions == "conditions":
            raise InputError(
                "the data's conditions on the outputs are about no label, and nothing that runs unasked knows others: "
                "add a verifier, as -c bab"
            )
        raise InputError("both sides are switched off: leave out one of -a none and -c none")
    names = [one.evaluator.spec for one in chosen]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{twice!r} is asked for twice: each evaluator runs once")
    for one in chosen:
        why = _inapplicable(one.evaluator, subject, asked)
        if why:
            opaque = one.evaluator.side == "attack" and subject.classifier.graph is None
            others = _others(plugins, subject, asked) if opaque else ""
            raise InputError(
                f"{one.evaluator.spec} does not apply to {subject.canonical} in {asked.norm}: {why}{others}"
            )


def _wrapper(evaluator: Evaluator, subject: Subject) -> str:
    """Return the wrapper, as a spec, that makes of the subject what the certifier certifies; empty: none."""
    wraps = getattr(evaluator.value, "wraps", None)
    return cast("str | None", wraps(Counted(subject.classifier))) or "" if wraps else ""


def _attacks(
    plugins: Plugins, settings: Settings, subject: Subject, asked: Asked
) -> tuple[list[Chosen], dict[str, str]]:
    """Return the attacks that were asked for, or the defaults, and why the defaults before them were left out.

    Of a distribution's defaults, in order of registration, the first that applies runs; the last where none does.
    """
    chosen: list[Chosen] = []
    skipped: dict[str, str] = {}
    if settings.attacks is None:
        for group in plugins.defaults("attacks"):
            for entry in group:
                found = _attack(plugins, settings, subject, entry.name, default=True)
                why = _inapplicable(found.evaluator, subject, asked) or _unsettled(found.evaluator, subject)
                if why is None or (entry is group[-1] and asked.regions != "conditions"):
                    chosen.append(found)
                    break
                skipped[found.evaluator.spec] = why
    for one in settings.attacks or ():
        if isinstance(one, str):
            chosen.append(_attack(plugins, settings, subject, one, default=False))
            continue
        name, attack = python_name(one), cast(Attack, one)
        modifier = _modifier(plugins, subject, attack, ())
        if modifier is not None:
            name, attack = f"{name} | {modifier}", _modified(plugins, modifier, attack)
        chosen.append(Chosen(Evaluator(name, "attack", attack), name, (), False))
    return chosen, skipped


def _unsettled(evaluator: Evaluator, subject: Subject) -> str | None:
    """Return why a schedule is no default here: where nothing is ever broken it would make every stage in full."""
    schedule = hasattr(evaluator.value, "stages") and is_random(subject.classifier)
    return "its stages go by what is broken, and nothing is where a classifier draws" if schedule else None


def _attack(plugins: Plugins, settings: Settings, subject: Subject, spec: str, default: bool) -> Chosen:
    resolved = plugins.resolve("attacks", spec, search=settings.search)
    modifier = _modifier(plugins, subject, resolved.value, resolved.parts)
    if modifier is not None:
        resolved = plugins.resolve("attacks", f"{resolved.canonical} | {modifier}", search=settings.search)
    evaluator = Evaluator(resolved.canonical, "attack", cast(Attack, resolved.value))
    return Chosen(evaluator, resolved.full, resolved.parts, default)


def _modifier(plugins: Plugins, subject: Subject, attack: object, parts: Sequence[Part]) -> str | None:
    """Return the modifier that an attack needs to meet this classifier; None where it needs none."""
    if not is_random(subject.classifier) or getattr(attack, "randomized", False):
        return None
    names = [group[0].name for group in plugins.defaults("attack_modifiers")]
    return None if not names or any(part.name in names for part in parts) else names[0]


def _modified(plugins: Plugins, modifier: str, attack: Attack) -> Attack:
    return cast(AttackModifier, plugins.resolve("attack_modifiers", modifier).value).modify(attack)


def _others(plugins: Plugins, subject: Subject, asked: Asked) -> str:
    """Return the attacks that do apply, by their defaults, as the end of a message; nothing where none does."""
    found = []
    for entry in plugins.entries("attacks"):
        try:
            factory = plugins.factory(entry)
            required = [one for one in describe(factory) if one.default is None]
            if required:  # `transfer` needs a source; what others need is not known
                fits = getattr(factory, "access", "") == "transfer"
            else:
                attack = plugins.resolve("attacks", entry.name).value
                if (modifier := _modifier(plugins, subject, attack, ())) is not None:
                    attack = _modified(plugins, modifier, attack)
                fits = _inapplicable(Evaluator(entry.name, "attack", attack), subject, asked) is None
        except Exception:  # whatever a plugin does: this is the end of a message
            continue
        if fits:
            found.append(entry.name + "".join(f":{one.name}=…" for one in required[:1]))
    return f"; these apply: {', '.join(found)}" if found else ""


def _costly(plugins: Plugins, subject: Subject, asked: Asked) -> tuple[str, ...]:
    """Return a line that names the certifiers that apply where none was chosen: those that are not cheap."""
    found = []
    for entry in plugins.entries("certifiers"):
        try:
            certifier = plugins.resolve("certifiers", entry.name).value
            if _inapplicable(Evaluator(entry.name, "certificate", cast(Certifier, certifier)), subject, asked) is None:
                found.append(entry.name)
        except Exception:  # whatever a plugin does: this is a hint
            continue
    return (f"nothing certifies {subject.canonical} at small cost: add -c {' or -c '.join(found)}",) if found else ()


def _certifiers(
    plugins: Plugins, settings: Settings, subject: Subject, asked: Asked
) -> tuple[list[Chosen], dict[str, str]]:
    """Return the certifiers that were asked for, or every cheap one that applies; and why others do not."""
    chosen: list[Chosen] = []
    skipped: dict[str, str] = {}
    wanted: list[tuple[str | Certifier, bool]] = []
    entries = plugins.entries("certifiers")
    for one in settings.certifiers if settings.certifiers is not None else (None,):
        if one is None or one == "auto":
            wanted += [(e.name, True) for e in entries if e.cost == "small" or (e.default and one is None)]
        else:
            wanted.append((one, False))
    for given, automatic in wanted:
        if not isinstance(given, str):
            name = python_name(given)
            chosen.append(Chosen(Evaluator(name, "certificate", given, early=True), name, (), False))
            continue
        resolved = plugins.resolve("certifiers", given, search=settings.search)
        part = resolved.parts[0]
        early = part.entry is not None and part.entry.cost == "small"
        evaluator = Evaluator(resolved.canonical, "certificate", cast(Certifier, part.value), early)
        why = _inapplicable(evaluator, subject, asked) if automatic else None
        if why:
            skipped[resolved.canonical] = why
        else:
            chosen.append(Chosen(evaluator, resolved.full, resolved.parts, automatic))
    return chosen, skipped


def _inapplicable(evaluator: Evaluator, subject: Subject, asked: Asked) -> str | None:
    if asked.regions and is_random(subject.classifier):
        return "it draws at inference, and the data's own sets are about one function"
    if asked.regions == "conditions" and not getattr(evaluator.value, "regions", False):
        return "it asks about labels, and the data's conditions on the outputs are others: take a verifier, and -a none"
    if is_smoothed(subject.classifier):
        if hasattr(evaluator.value, "stages"):
            return "it votes, and a test of votes spends its share of α: stages cannot be counted beforehand"
    elif merely_draws(subject.classifier) and evaluator.side == "certificate":
        return "it draws at inference: r* is not defined, so there is nothing to certify"
    applies = getattr(evaluator.value, "applies", None)
    # Counted, as the runner hands it out: its answers are checked.
    return cast("str | None", applies(Counted(subject.classifier), asked.norm)) if applies else None
