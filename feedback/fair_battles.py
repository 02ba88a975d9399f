"""Which judgements make the ranking: blind ones, and curators' word before the members'. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from feedback.identity_leaks import blind
from feedback.rulings import all_discard, together
from storage.curations import Curation
from storage.ratings import Battle, ComparisonId


def fair(
    battles: Iterable[Battle], curations: Mapping[ComparisonId, Sequence[Curation]]
) -> tuple[list[Battle], Counter[str]]:
    """What counts, and how many judgements do not, by reason.

    A comparison whose winner curators name is one judgement, theirs, in place of all that members
    said of it.
    """
    counted: list[Battle] = []
    left_out: Counter[str] = Counter()
    decided: set[ComparisonId] = set()
    for battle in battles:
        said = curations.get(battle.comparison_id, ())
        ruling = together(said)
        if not blind(battle):
            left_out["the answer named its model"] += 1
        elif all_discard(said):
            left_out["curators discarded it"] += 1
        elif ruling.disputed:
            left_out["curators disagree"] += 1
        elif ruling.winner is None:
            counted.append(battle)
        elif battle.comparison_id not in decided:
            decided.add(battle.comparison_id)
            counted.append(replace(battle, winner=ruling.winner, voter=None))
        else:
            left_out["curators decided it"] += 1
    return counted, left_out
