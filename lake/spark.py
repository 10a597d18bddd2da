"""How is Spark asked what DuckDB is asked elsewhere? A connection with the same words, over the same files.

One Spark session serves a process; it starts with the first question (which takes ten seconds and more). A table of the
lake is the list of its active Parquet files, read as such: no Delta jar, nothing from the internet. What is asked comes
as SQL for DuckDB and is translated (lake.spark_sql); answers come back through Arrow.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
from sqlglot import Expr, exp

from foretell.errors import NotReady
from foretell.project import Project
from lake.literals import quote
from lake.spark_sql import Known, for_spark, statements

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SCRATCH = "spark"
# DuckDB's names of Spark's types, as rules and contracts know them.
_KINDS = {
    "bigint": "BIGINT", "int": "INTEGER", "double": "DOUBLE", "float": "FLOAT", "string": "VARCHAR",
    "boolean": "BOOLEAN", "date": "DATE", "timestamp": "TIMESTAMP WITH TIME ZONE",
}  # fmt: skip
_DRIVER, _EXECUTOR = "spark.driver.extraJavaOptions", "spark.executor.extraJavaOptions"
_QUIET = """rootLogger.level = error
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %p %c{1}: %m%n
logger.gateway.name = org.apache.spark.api.python.PythonGatewayServer
logger.gateway.level = error
"""


def spark_session(project: Project) -> SparkSession:
    """The process' Spark session, begun on first use by the settings spark_master and spark_conf.

    A NotReady without pyspark or Java. A later project with other settings gets the session there is: Spark has one
    context a process.
    """
    return _begun(project.setting("spark_master"), tuple(sorted(project.setting("spark_conf").items())))


@cache
def _begun(master: str, conf: tuple[tuple[str, str], ...]) -> SparkSession:
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise NotReady("engine spark", "pyspark is not installed", "pip install foretell[spark]") from None
    if not os.environ.get("JAVA_HOME") and shutil.which("java") is None:
        raise NotReady("engine spark", "no Java found", "install a JRE of version 17 or later, or set JAVA_HOME")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # workers run what the driver runs
    quiet = Path(tempfile.mkdtemp(prefix="foretell-spark-"))
    (quiet / "log4j2.properties").write_text(_QUIET)
    atexit.register(shutil.rmtree, quiet, ignore_errors=True)
    told = _settings(master, conf)
    told[_DRIVER] = f"-Dlog4j2.configurationFile=file:{quiet / 'log4j2.properties'} {told[_DRIVER]}"
    builder = SparkSession.builder.appName("foretell").master(master)
    if master.startswith("local"):  # on a cluster workers have Foretell installed, and reach the driver by its name
        here = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
        here["spark.executorEnv.PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        here["spark.checkpoint.dir"] = str(quiet / "checkpoints")
        told = {**here, **told}
    for name, value in {"spark.sql.warehouse.dir": str(quiet / "warehouse"), **told}.items():
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
    except Exception as error:
        said = str(error).strip().splitlines()[0][:200]
        raise NotReady(
            "engine spark", f"Spark did not start on {master}: {said}", "see spark_master, spark_conf"
        ) from error
    if folder := session.conf.get("spark.checkpoint.dir", None):  # Splink writes there what it reads again
        session.sparkContext.setCheckpointDir(folder)
    return session


def settings_of(project: Project) -> dict[str, str]:
    """What a Spark session of this project's is begun with, for others who begin one: the master among it."""
    master, conf = project.setting("spark_master"), tuple(sorted(project.setting("spark_conf").items()))
    return {"spark.master": master, **_settings(master, conf)}


def _settings(master: str, conf: tuple[tuple[str, str], ...]) -> dict[str, str]:
    given = dict(conf)
    jars = [*filter(None, [given.pop("spark.jars", "")]), *map(str, _splink_jars())]
    own = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.jars": ",".join(jars),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.ansi.enabled": "true",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.shuffle.partitions": str(_cores(master)),
    }
    for name in (_DRIVER, _EXECUTOR):
        own[name] = f"-Duser.timezone=UTC {given.pop(name, '')}".strip()
    return {**own, **given}


def _splink_jars() -> list[Path]:
    """What Splink brings for Spark: jaro_winkler and other likenesses of text. It must be there from the beginning."""
    found = importlib.util.find_spec("splink")
    if found is None or found.origin is None:
        return []
    return sorted((Path(found.origin).parent / "internals/files/spark_jars").glob("*_spark4.x.jar"))[-1:]


def _cores(master: str) -> int:
    """How many parts a shuffle has: as many as local threads. On a cluster Spark's own rule joins small ones."""
    inside = master.partition("[")[2].rstrip("]").split(",")[0]
    return int(inside) if inside.isdigit() else (os.cpu_count() or 2) if master.startswith("local") else 200


class Answer:
    """What a query was answered, as a DuckDB connection gives it."""

    def __init__(self, frame: DataFrame):
        self._frame = frame

    @property
    def description(self) -> list[tuple[str, str]]:
        return [(field.name, duckdb_type(field.dataType.simpleString())) for field in self._frame.schema.fields]

    def to_arrow_table(self) -> pa.Table:
        return self._frame.toArrow()

    def fetchall(self) -> list[tuple]:
        """The rows; instants with their zone, UTC."""
        columns = [column.to_pylist() for column in self.to_arrow_table().columns]
        return list(zip(*columns, strict=True))

    def df(self) -> Any:
        """A pandas table, of the types that DuckDB would give it."""
        with duckdb.connect() as con:
            con.execute("SET TimeZone='UTC'")
            con.register("answer", self.to_arrow_table())
            return con.execute("FROM answer").df()


class Said:
    """What a statement that answers with rows of its own says, such as DESCRIBE."""

    def __init__(self, rows: Sequence[tuple] = ()):
        self._rows = list(rows)

    def fetchall(self) -> list[tuple]:
        return self._rows


class Connection:
    """The part of a DuckDB connection that features, labels, populations and consent use, on Spark.

    Views are made when they are first asked for. A temporary table is a view that Spark keeps in memory, or on the
    workers' disks, until another takes its name.
    """

    def __init__(self, project: Project):
        self.spark = spark_session(project).newSession()
        self._later: dict[str, Expr] = {}
        self._made: set[str] = set()
        self._kept: dict[str, DataFrame] = {}
        self._read: dict[tuple[str, ...], str] = {}
        self._known = Known(self._files, self._names, self._columns, self._kinds)

    def execute(self, text: str) -> Any:
        """Run statements written for DuckDB; the last one's answer, with `fetchall` and of a query `df` too."""
        found: Any = Said()
        for tree in statements(text):
            found = self._run(tree)
        return found

    def sql(self, query: str) -> Answer:
        return Answer(self.frame(query))

    def frame(self, query: str) -> DataFrame:
        """A query written for DuckDB as Spark's table, not run yet."""
        (tree,) = statements(query)
        return self._frame(tree)

    def register(self, name: str, rows: pa.Table) -> None:
        """Make a table that is at hand a view."""
        self._drop(name)
        self._show(name, self.spark.createDataFrame(rows))  # pyright: ignore[reportArgumentType]

    def close(self) -> None:
        for name in list(self._kept):
            self._drop(name)
        for name in self._made:
            self.spark.catalog.dropTempView(name)

    def _run(self, tree: Expr) -> Any:
        match tree:
            case exp.Create():
                self._create(tree)
                return Said()
            case exp.Drop():
                self._drop(tree.this.name)
                return Said()
            case exp.Describe():
                frame = self._frame(exp.select("*").from_(tree.this) if isinstance(tree.this, exp.Table) else tree.this)
                return Said([(f.name, duckdb_type(f.dataType.simpleString())) for f in frame.schema.fields])
            case exp.Delete():
                return Said([(self._delete(tree),)])
        return Answer(self._frame(tree))

    def _frame(self, tree: Expr) -> DataFrame:
        made_here = {cte.alias for cte in tree.find_all(exp.CTE)}
        for table in tree.find_all(exp.Table):
            name = table.name
            if name not in made_here and (later := self._later.pop(name, None)) is not None:
                self._show(name, self._frame(later))
        return self.spark.sql(for_spark(tree, self._known))

    def _create(self, tree: exp.Create) -> None:
        name, query = tree.this.name, tree.expression
        temporary = tree.args.get("properties") is not None and tree.args["properties"].find(exp.TemporaryProperty)
        if tree.kind == "VIEW" and not temporary:
            self._drop(name)
            self._later[name] = query
            return
        frame = self._frame(query.unnest() if isinstance(query, exp.Subquery) else query)
        self._drop(name)
        if tree.kind == "TABLE":
            self._kept[name] = frame = frame.persist()
        self._show(name, frame)

    def _delete(self, tree: exp.Delete) -> int:
        """How many rows a temporary table has lost."""
        name, gone = tree.this.name, tree.args["where"].this
        kept = exp.select("*").from_(exp.to_table(name)).where(exp.not_(exp.func("coalesce", gone.copy(), exp.false())))
        before, frame = self.spark.table(name), self._frame(kept).persist()
        lost = before.count() - frame.count()
        self._drop(name)
        self._kept[name] = frame
        self._show(name, frame)
        return lost

    def _show(self, name: str, frame: DataFrame) -> None:
        frame.createOrReplaceTempView(name)
        self._made.add(name)

    def _drop(self, name: str) -> None:
        self._later.pop(name, None)
        if (kept := self._kept.pop(name, None)) is not None:
            kept.unpersist()

    def _files(self, files: Sequence[str], differ: bool) -> str:
        """A view of Parquet files; those of a table may be in folders that say a column, month=2024-01-01."""
        if (name := self._read.get(key := tuple(files))) is None:
            name = self._read[key] = f"files_{len(self._read)}"
            reader = self.spark.read
            if differ and len(files) > 1:
                reader = reader.option("mergeSchema", "true")
            parts = Path(files[0]).parts
            if said := [place for place, part in enumerate(parts[:-1]) if "=" in part]:
                reader = reader.option("basePath", str(Path(*parts[: said[0]])))
            self._show(name, reader.parquet(*files))
        return name

    def _names(self) -> list[str]:
        return sorted({*self._later, *self._made})

    def _columns(self, query: str) -> Sequence[str]:
        return self.spark.sql(query).columns

    def _kinds(self, query: str) -> Sequence[str]:
        return [field.dataType.simpleString() for field in self.spark.sql(query).schema.fields]


def duckdb_type(name: str) -> str:
    """DuckDB's name of a type of Spark's.

    >>> duckdb_type("bigint"), duckdb_type("decimal(18,4)")
    ('BIGINT', 'DECIMAL(18,4)')
    """
    return _KINDS.get(name, name.upper())


@contextmanager
def session(project: Project, watermark: int) -> Iterator[Connection]:
    """A connection to Spark with a view for every table, as lake.engine.session gives of DuckDB."""
    from lake.engine import create_views

    con = Connection(project)
    _sweep(project)
    try:
        create_views(con, project, watermark)
        yield con
    finally:
        con.close()


@contextmanager
def landed(project: Project, rows: DataFrame) -> Iterator[str]:
    """Rows of Spark's, as a table that DuckDB can be asked for while the context lasts.

    The workers write them, each its part, into a folder of the home's that is removed afterwards: the driver never
    holds all of them. On a cluster the home must therefore be where all can write, as they read the facts there.
    """
    folder = project.home / SCRATCH / f"{os.getpid()}-{uuid.uuid4().hex}"
    try:
        rows.write.parquet(str(folder))
        yield f"read_parquet('{quote(folder)}/*.parquet')"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def forget(project: Project) -> None:
    """Remove what Spark has written: a person is erased."""
    shutil.rmtree(project.home / SCRATCH, ignore_errors=True)


def _sweep(project: Project) -> None:
    """Remove what killed commands have left."""
    for folder in (project.home / SCRATCH).glob("*-*"):
        try:
            os.kill(int(folder.name.partition("-")[0]), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except PermissionError:  # another user's, and alive
            pass
