"""How much will an active buyer spend in the next 180 days?"""

from dataclasses import replace

from foretell import days
from models.clv import clv

clv_180 = replace(clv, name="clv_180", horizon=days(180))
