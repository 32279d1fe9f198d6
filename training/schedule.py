"""The learning rate at a moment of a run: a function of the epoch, so that a schedule has no state to save. Pure."""

import math

from training.preset import Recipe

ONE_CYCLE_RISE = 0.3  # share of the run
CYCLE_EPOCHS = 4.0


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """The rate at *epoch* (0 at the start, with fractions).

    `one-cycle` rises from 1/25 by a cosine and falls to 1/10,000; `cyclic` goes to and fro between 1/20 and the highest
    (Smith, WACV 2017), ending low; `step` falls to a tenth after 60 % and again after 85 % of the run.
    """
    top, done = recipe.learning_rate, epoch / recipe.epochs
    if recipe.schedule == "one-cycle":
        rising = done < ONE_CYCLE_RISE
        start, end = (top / 25, top) if rising else (top, top / 1e4)
        return _cosine(start, end, done / ONE_CYCLE_RISE if rising else (done - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))
    if epoch < recipe.warm_up_epochs:
        return top * max(epoch / recipe.warm_up_epochs, 0.01)
    if recipe.schedule == "cosine":
        left = recipe.epochs - recipe.warm_up_epochs
        return _cosine(top, top / 1e3, (epoch - recipe.warm_up_epochs) / left)
    if recipe.schedule == "step":
        return top * (1.0 if done < 0.6 else 0.1 if done < 0.85 else 0.01)
    if recipe.schedule == "cyclic":
        cycle = recipe.epochs / max(1, round(recipe.epochs / CYCLE_EPOCHS))
        place = (epoch % cycle) / cycle
        return top / 20 + (top - top / 20) * (1 - abs(2 * place - 1))
    return top


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
