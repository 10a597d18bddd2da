"""How do people buy until they leave, and how much at a time? Models of customer lifetime, as arithmetic.

When somebody leaves for good nobody sees; "buy till you die" models infer it from the silence since the last purchase.
Three of them say how often people buy and when they leave, a fourth what a purchase is worth:

    BGNBD       one may leave after each repeat purchase
    MBGNBD      one may leave after each purchase, the first included
    ParetoNBD   one may leave at any moment, whether one buys or not
    GammaGamma  values vary around each customer's own mean

All are fitted by maximum likelihood over the logs of their parameters, with analytic gradients.
"""

from models.estimators.lifetime.bg_nbd import BGNBD, MBGNBD
from models.estimators.lifetime.gamma_gamma import GammaGamma
from models.estimators.lifetime.pareto_nbd import ParetoNBD

__all__ = ["BGNBD", "MBGNBD", "GammaGamma", "ParetoNBD"]
