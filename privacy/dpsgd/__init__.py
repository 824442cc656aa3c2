"""Per-user gradients, clipped and summed: the only home of Opacus.

Guarantees
----------
- One training example is one user, so clipping an example's gradient clips the person. Checked at every step,
  in both modes: each trainable parameter has exactly one gradient per user (items folded into the batch
  dimension break this); in one random micro-batch they add up to the gradient that autograd found (weights
  used behind the hooks' back, as in ``z @ emb.weight.T``, break this); one random user's gradient there is
  the same when computed alone (what mixes users breaks this), and autograd's own, clipped, is no longer than
  the clip norm. ``start_up_self_test`` compares with a plain autograd loop before any private row is read.
- Modes. ``hooks``: Opacus' ``grad_sample``, a row for each user. ``ghost``: Opacus' ghost clipping, for wide
  layers without the rows, for positions with a few users' rows at a time. By default the shapes of the layers
  decide; the sums agree (see below).
- A user whose loss, gradient or norm is not a finite number counts as nobody. They are taken out and the
  rest is computed again, so that no NaN passes on, not even times zero. Who is taken out depends on their
  own rows alone, which is checked as well.
- Memory is bounded by micro-batches, whatever the sample rate. (Opacus' ``BatchMemoryManager`` does the same
  by driving a ``DPOptimizer``, which would draw the noise as well; ours is drawn elsewhere, on integers.)
  How a batch is cut depends on the model, the shapes and the memory bound, so every run cuts alike.

Floating point
--------------
One person's presence moves the sum by at most ``(1 + 1e-5) C``, C = ``max_grad_norm``; plans pay for that
(``policies.plans.shapes``). The parts, for up to 2^17 users a step and float64, the only type accepted:

1. *Their own gradient*: at most C in real arithmetic. The factor comes from a norm that is right to 2^-31 of
   itself and leaves a slack of 2^-30.
2. *Rounding of the sum*: a coordinate is a sum over the users of a micro-batch (at most 2^10), then over
   micro-batches (at most 2^17). Its error is at most 2^-53 (2^10 + 2^17) times the sum of magnitudes, and the
   norm of these is at most 2^17 C. In two worlds: 3.9e-6 C.
3. *The others' gradients*: one more user shifts later ones to other places and other micro-batches, where
   matrix products may round otherwise. No bound holds for every network, so it is measured: a step is refused
   if the user who is also computed alone moves by more than 1e-11 C (usual is 1e-15). Twice that, for 2^17
   users: 2.6e-6 C. In float32 the usual is 1e-7, beyond the price from fifty users on: refused. Whoever
   trains asks :meth:`PerUserGradients.rounding` of made-up users first and stops a tenth short of it: that
   a training went astray is then seen from public weights, not from somebody's rows.

Rows are *not* put on the grid of ``clip_rows``: part 3 could then move each coordinate of everybody by a
whole grid unit, where values lie on its lines. A step made of several calls adds up their users. Parts 2 and
3 grow at most with the square of the users, so a plan for more than 2^17 in a silo pays that much more.
"""

from __future__ import annotations

from privacy.dpsgd.accountants import opacus_prv_epsilon, opacus_rdp_epsilon
from privacy.dpsgd.base import LossPerUser, Mode, PerUserGradientError
from privacy.dpsgd.gradients import ROUNDING, USERS_AT_BASE_PRICE, PerUserGradients

__all__ = [
    "ROUNDING",
    "USERS_AT_BASE_PRICE",
    "LossPerUser",
    "Mode",
    "PerUserGradientError",
    "PerUserGradients",
    "opacus_prv_epsilon",
    "opacus_rdp_epsilon",
]
