"""How much will an active buyer spend in the next year?"""

from dataclasses import replace

from foretell import days
from models.clv import clv

clv_365 = replace(clv, name="clv_365", horizon=days(365))
