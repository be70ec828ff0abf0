"""Which intents ask for nothing, and what is answered below a threshold."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from intents.calibrations import ABSTAIN, USUAL_REJECT


@dataclass(frozen=True)
class Limits:
    """The risks that thresholds are to keep; None sets no limit. params.yaml explains each."""

    max_false_action_rate: float | None = None
    max_error_rate: float | None = None
    stricter: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Roles:
    """Which intents ask for nothing, and what is answered below a threshold."""

    reject: str  # an intent, or "abstain"
    no_action: Sequence[str]  # answers that do nothing
    harmless: Sequence[str]  # those of them whose texts set thresholds
    untrained: Sequence[str]  # intents that no training row has

    def actions(self, intents: Sequence[str]) -> list[str]:
        """Return those of `intents` that ask for something."""
        return [intent for intent in intents if intent not in self.no_action]


def choose_roles(
    intents: Sequence[str], reject_intent: str | None, out_of_scope_intent: str | None, out_of_scope_use: str
) -> Roles:
    """Return the roles that settings give to `intents`.

    `reject_intent` is an intent, None, or "auto": no_intent where the data has it, else the out-of-scope intent.

    Raises:
        ValueError: `reject_intent` is no intent of the data, or it is None and the data has an intent "abstain".

    """
    if reject_intent == "auto":
        reject_intent = next((name for name in (USUAL_REJECT, out_of_scope_intent) if name in intents), None)
        harmless = [name for name in (reject_intent,) if name and name != out_of_scope_intent]
    else:
        harmless = [] if reject_intent is None else [reject_intent]
    if reject_intent is None and ABSTAIN in intents:
        raise ValueError(
            f"calibrate.reject_intent: the data has an intent {ABSTAIN!r}, which is also the answer of a classifier"
            f" that is not sure enough; set it to {ABSTAIN}, or rename the intent"
        )
    if reject_intent is not None and reject_intent not in intents:
        raise ValueError(
            f"calibrate.reject_intent: the data has no intent {reject_intent!r}; it has: {', '.join(intents)}"
            " (auto takes no_intent where there is one, null answers 'abstain')"
        )
    if out_of_scope_intent and out_of_scope_use != "class":
        harmless.append(out_of_scope_intent)
    passive = [name for name in (reject_intent, out_of_scope_intent) if name]
    return Roles(
        reject=reject_intent or ABSTAIN,
        no_action=list(dict.fromkeys(passive)),
        harmless=list(dict.fromkeys(harmless)),
        untrained=[out_of_scope_intent] if out_of_scope_intent and out_of_scope_use == "threshold" else [],
    )


def check_limits(limits: Limits, roles: Roles, intents: Sequence[str], found: Collection[str]) -> None:
    """Raise ValueError where the limits do not suit the data, of whose `intents` validation has those in `found`."""
    actions = roles.actions(intents)
    if not actions:
        raise ValueError(
            f"calibrate.reject_intent: every intent ({', '.join(roles.no_action)}) asks for nothing; there must be one"
            " to act on, beside it and prepare.out_of_scope_intent"
        )
    unknown = sorted(set(limits.stricter) - set(actions))
    if unknown:
        raise ValueError(
            f"calibrate.stricter: {unknown[0]!r} is no intent that a threshold guards; valid: {', '.join(actions)}"
        )
    if roles.harmless and limits.max_false_action_rate is not None and not set(roles.harmless) & set(found):
        raise ValueError(
            f"calibrate.max_false_action_rate: no validation row has the intent {' or '.join(roles.harmless)}; add"
            " some, or set it to null"
        )
