"""How does Splink run on Spark? By its own backend, on this process' session.

What likens texts comes with Splink, as a jar for Spark's own machine; lake.spark loads it when Spark begins, as it
cannot be added later.
"""

from __future__ import annotations

from typing import Any

from foretell.errors import NotReady
from foretell.project import Project
from lake.spark import spark_session


def splink_api(project: Project) -> Any:
    """Splink's backend, whose `spark` is a session that knows jaro_winkler and the like.

    A NotReady without pyspark, Java or Splink.
    """
    session = spark_session(project)
    try:
        from splink import SparkAPI
    except ImportError:
        raise NotReady("matching on Spark", "splink is not installed", "pip install foretell") from None
    return SparkAPI(spark_session=session.newSession(), break_lineage_method="parquet")
