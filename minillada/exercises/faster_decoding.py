"""Exercises of notebook 13, faster decoding."""

from .checking import Case, Cases, Chance, exercise


@exercise("correct: what is not made faster soon takes most of the time")
def check_speedup(chance: Chance) -> Cases:
    """`function(share, factor) -> float`: how much faster a pass gets.

    `share` of its time becomes `factor` times faster, the rest stays as it is.
    """
    random = chance.whole(20, 80) / 100, float(chance.whole(2, 9))
    for share, factor in ((0.5, 2.0), (0.9, 4.0), (0.25, 3.0), random):
        left = 1 - share + share / factor
        mistakes = {
            "the part that stays as it is takes time, too": factor,
            "that is neither a time nor a speed: add the times of both parts": share * factor,
            "that is the time that is left; the speed is one over it": left,
            "that is the time that is saved; the speed is one over what is left": 1 - left,
            "twice as fast is 2, not 1: nothing is subtracted": 1 / left - 1,
            "times add up, speeds do not: add the times of both parts": 1 - share + share * factor,
            "the faster part still takes time, however little": 1 / (1 - share),
            "share and rest are exchanged": 1 / (share + (1 - share) / factor),
        }
        yield Case((share, factor), 1 / left, mistakes)


def front(points: list[tuple[float, float]]) -> list[int]:
    """Numbers of the points that no other point beats."""
    kept = []
    for number, (speed, quality) in enumerate(points):
        beaten = False
        for other_speed, other_quality in points:
            as_good = other_speed >= speed and other_quality >= quality
            if as_good and (other_speed, other_quality) != (speed, quality):
                beaten = True
        if not beaten:
            kept.append(number)
    return kept


@exercise("correct: whatever you value, only these settings are worth a thought")
def check_front(chance: Chance) -> Cases:
    """`function(points: list of (speed, quality)) -> list of int`: which settings are not beaten.

    A point is beaten by another one that is at least as good in both and better in one of them.
    """
    # Of two points with one speed the better one stays; of two equal points, both do.
    fixed = [(5.0, 70.0), (5.0, 75.0), (2.0, 95.0), (4.0, 80.0), (3.0, 80.0), (4.0, 80.0)]
    fixed += [(1.0, 99.0), (0.5, 99.0), (3.0, 91.0)]
    random = [(float(chance.whole(1, 9)), float(chance.whole(80, 99))) for _ in range(12)]
    for points in (fixed, fixed + random):
        fastest = max(speed for speed, _ in points)
        best = max(quality for _, quality in points)
        strict, lone, slow = [], [], [(-speed, quality) for speed, quality in points]
        faster, better = [], []
        for number, (speed, quality) in enumerate(points):
            if not any(s > speed and q > quality for s, q in points):
                strict.append(number)
            if not any(s > speed and q >= quality for s, q in points):
                faster.append(number)
            if not any(s >= speed and q > quality for s, q in points):
                better.append(number)
            others = points[:number] + points[number + 1 :]
            if not any(s >= speed and q >= quality for s, q in others):
                lone.append(number)
        ends = [i for i, (s, q) in enumerate(points) if s == fastest or q == best]
        kept = front(points)
        first = [number for number in kept if points.index(points[number]) == number]
        by_speed = sorted(kept, key=lambda number: points[number])
        mistakes = {
            "equal in one and worse in the other is beaten, too": strict,
            "equal points do not beat each other: keep both": lone,
            "of two equal points you keep one; neither is beaten": first,
            "with equal speed, the one of less quality is beaten, too": faster,
            "with equal quality, the slower one is beaten, too": better,
            "the smallest number comes first, not the slowest point": by_speed,
            "that is the best in each; compromises between them are not beaten": ends,
            "faster is better: this keeps the slow ones": front(slow),
            "those are the points; return their numbers": [points[number] for number in kept],
            "those are the beaten ones": [n for n in range(len(points)) if n not in kept],
        }
        yield Case((points,), kept, mistakes)


def common(a: list[int], b: list[int]) -> int:
    """Length of a longest common subsequence."""
    if not a or not b:
        return 0
    if a[0] == b[0]:
        return common(a[1:], b[1:]) + 1
    return max(common(a[1:], b), common(a, b[1:]))


def edit_distance(a: list[int], b: list[int], slip: str = "") -> int:
    """Fewest deletions, insertions and replacements that turn a into b (Levenshtein)."""
    if not a or not b:
        return 0 if slip == "ends" else len(a) + len(b)
    ways = [edit_distance(a[1:], b[1:], slip) + (a[0] != b[0])]
    if slip != "no deletion":
        ways.append(edit_distance(a[1:], b, slip) + 1)
    if slip != "no insertion":
        ways.append(edit_distance(a, b[1:], slip) + 1)
    if slip == "swap" and len(a) > 1 and a[:2] == b[1::-1]:
        ways.append(edit_distance(a[2:], b[2:], slip) + 1)
    return min(ways)


@exercise("correct: never more edits than the labels of section 7 need, and sometimes fewer")
def check_edit_distance(chance: Chance) -> Cases:
    """`function(a: list, b: list) -> int`: the fewest edits of one token that turn a into b.

    An edit deletes a token, inserts one, or replaces one by another.
    """
    random = [chance.whole(1, 3) for _ in range(5)], [chance.whole(1, 3) for _ in range(4)]
    pairs: list[tuple[list[int], list[int]]] = [
        ([1, 2, 3, 4], [2, 4]),
        ([2, 4], [1, 2, 3, 4]),
        ([1, 2], [2, 1]),
        ([1, 2, 1, 2], [2, 1, 2, 1]),
        ([], [1, 2]),
        ([5, 1, 2, 6, 3], [1, 7, 2, 3]),
        ([1, 2, 3], [4, 5]),
        ([1, 2, 3, 4, 5], [2, 3, 4, 5, 6]),
        ([1, 2, 3], [1, 2, 3]),
        random,
    ]
    for a, b in pairs:
        kept, hamming = common(a, b), sum(x != y for x, y in zip(a, b))
        longer, shorter = max(len(a), len(b)), min(len(a), len(b))
        in_place = hamming + longer - shorter
        mistakes = {
            "a replacement is one edit, not a deletion and an insertion": len(a + b) - 2 * kept,
            "that compares place with place; one insertion moves all behind it": in_place,
            "the surplus tokens of the longer list cost an edit each": hamming,
            "that is how many tokens stay; count the edits": kept,
            "keeping most tokens may cost more edits: try all three in each place": longer - kept,
            "order matters: count edits, not tokens that occur in one list only": len({*a} ^ {*b}),
            "a token may be deleted, too": edit_distance(a, b, "no deletion"),
            "a token may be inserted, too": edit_distance(a, b, "no insertion"),
            "where one list has ended, each token of the other costs an edit": (
                edit_distance(a, b, "ends")
            ),
            "exchanging two neighbours is no edit; it takes two": edit_distance(a, b, "swap"),
        }
        yield Case((a, b), edit_distance(a, b), mistakes)
