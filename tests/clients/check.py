"""Holds clients that others wrote against a running Quad whose campus day is complete, so that nothing changes meanwhile.

Reads from the environment:
    QUAD_PG       HOST:PORT of the PostgreSQL wire            QUAD_GRPC   HOST:PORT of Flight SQL and ProfileService
    QUAD_USER     name of an admin token                      QUAD_TOKEN  that token
    QUAD_LAKE     directory of the Delta tables               QUAD_STUDENT  a student number with grades
    QUAD_KAFKA    HOST:PORT of the broker; without it the checks of topics are skipped
Prints one line a check, then `N passed, N failed, N skipped`; exits 1 when a check failed. Writes nothing anywhere.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi
import deltalake
import duckdb
import grpc
import psycopg
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

TIMEOUT_S = 30
PROFILES_S = 300
# An event table with gates' pushes, and one whose rows come by SQL.
EVENTS = "access_control.access_event"
GRADES = "academic.grade"
PROFILES = "quad.profile.v1.ProfileService"
NOBODY = "99999999999999999999"

CHECKS = []


class Skip(Exception):
    """The check cannot run here; the message says why."""


def check(function):
    CHECKS.append(function)
    return function


def setting(name, default=None):
    value = os.environ.get(name) or default
    if value is None:
        sys.exit(f"{name} is not set; see the top of tests/clients/check.py")
    return value


def same(what, left, right):
    assert left == right, f"{what}: {left!r} is not {right!r}"


def refused(call, *words):
    """Runs `call`, which must fail with a message that has one of `words` in it."""
    try:
        call()
    except Exception as error:  # each client has its own exception types
        text = f"{error} {getattr(error, 'sqlstate', '')}".lower()
        assert any(word.lower() in text for word in words), f"refused, but not with {words}: {text}"
        return
    raise AssertionError(f"was not refused; expected {words}")


# ---- PostgreSQL wire ------------------------------------------------------------------------------------------------------


def postgres(token=None):
    host, port = setting("QUAD_PG").rsplit(":", 1)
    return psycopg.connect(
        host=host,
        port=port,
        user=setting("QUAD_USER"),
        password=token or setting("QUAD_TOKEN"),
        dbname="quad",
        connect_timeout=TIMEOUT_S,
        autocommit=True,
    )


def count(table):
    with postgres() as connection:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


@check
def psycopg_counts_rows():
    assert count(GRADES) > 0
    assert count(f"{GRADES}_history") >= count(GRADES)


@check
def psycopg_binds_parameters():
    query = "SELECT student_no, name FROM student_affairs.student_base WHERE student_no = %s"
    with postgres() as connection:
        # Twice, the second time as a named prepared statement.
        for prepare in (False, True):
            rows = connection.execute(query, [setting("QUAD_STUDENT")], prepare=prepare).fetchall()
            same("rows", len(rows), 1)
            same("student", rows[0][0], setting("QUAD_STUDENT"))
            assert rows[0][1], "the name is empty"
        same("unknown student", connection.execute(query, [NOBODY]).fetchall(), [])


@check
def psycopg_reads_binary_results():
    query = "SELECT count(*), max(event_time), min(biz_date) FROM access_control.access_event"
    with postgres() as connection:
        text = connection.cursor(binary=False).execute(query).fetchone()
        binary = connection.cursor(binary=True).execute(query).fetchone()
        same("text and binary results", text, binary)


@check
def psycopg_is_told_what_is_wrong():
    with postgres() as connection:
        refused(lambda: connection.execute("SELECT * FROM academic.no_such_table"), "no_such_table")
        refused(lambda: connection.execute("SELECT no_such_column FROM academic.grade"), "no_such_column")
        refused(lambda: connection.execute("SELEC 1"), "42601", "syntax", "expected")
        same("the connection goes on", connection.execute("SELECT 1").fetchone()[0], 1)
    refused(lambda: postgres(token="wrong"), "28P01", "authentication", "password", "token")


@check
def psycopg_cannot_write():
    with postgres() as connection:
        refused(lambda: connection.execute("DELETE FROM academic.grade"), "read", "not supported", "denied", "delete", "not implemented")
        refused(lambda: connection.execute("CREATE TABLE t (a int)"), "read", "not supported", "denied", "create", "not implemented")


@check
def psycopg_reads_profiles_as_the_service_tells_them():
    student = setting("QUAD_STUDENT")
    profile = reflected().call(PROFILES, "GetProfile", person={"student_no": student}).profile
    items = {item.name: item for item in profile.items}
    states = "SELECT item_id, state FROM profile.item WHERE person_id = %s ORDER BY item_id"
    values = "SELECT person_id, version, name, gpa, failed_courses, student_nos, bed IS NULL, last_pass_day FROM profile.student WHERE student_no = %s"
    with postgres() as connection:
        told = connection.execute(states, [profile.person_id]).fetchall()
        names = [item.DESCRIPTOR.fields_by_name["state"].enum_type.values_by_number[item.state].name for item in profile.items]
        same("states", told, [(item.id, name.removeprefix("ITEM_STATE_").lower()) for item, name in zip(profile.items, names)])
        row = connection.execute(values, [student]).fetchone()
        columns = [column.name for column in connection.execute("SELECT * FROM profile.student LIMIT 1").description]
    same("person", row[:2], (profile.person_id, profile.profile_version))
    expected = [items["name"].value.string_value, items["gpa"].value.double_value, items["failed_courses"].value.int64_value]
    same("values", list(row[2:5]), expected)
    same("list", row[5], [value.string_value for value in items["student_nos"].value.list_value.values])
    same("no bed", row[6], not items["bed"].HasField("value"))
    same("class 3", row[7], None)
    same("columns that are missing", set(items) - {"profile_version", "computed_at"} - set(columns), set())


@check
def psql_answers():
    if not shutil.which("psql"):
        raise Skip("psql is not installed")
    host, port = setting("QUAD_PG").rsplit(":", 1)
    environment = {**os.environ, "PGPASSWORD": setting("QUAD_TOKEN"), "PGCONNECT_TIMEOUT": str(TIMEOUT_S)}
    command = ["psql", "-X", "-h", host, "-p", port, "-U", setting("QUAD_USER"), "-d", "quad", "-At"]
    output = subprocess.run(
        [*command, "-c", f"SELECT count(*) FROM {GRADES}"],
        env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL,
    )
    assert output.returncode == 0, output.stderr
    same("rows", int(output.stdout), count(GRADES))


# ---- Flight SQL -----------------------------------------------------------------------------------------------------------


def flight(token=None):
    header = adbc_driver_flightsql.DatabaseOptions.AUTHORIZATION_HEADER.value
    bearer = f"Bearer {token or setting('QUAD_TOKEN')}"
    return adbc_driver_flightsql.dbapi.connect(
        f"grpc://{setting('QUAD_GRPC')}", db_kwargs={header: bearer}, autocommit=True
    )


@check
def adbc_reads_arrow():
    with flight() as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {GRADES}")
        table = cursor.fetch_arrow_table()
        same("rows", table.num_rows, count(GRADES))
        assert "student_no" in table.column_names, table.column_names


@check
def adbc_prepares():
    with flight() as connection, connection.cursor() as cursor:
        cursor.adbc_prepare("SELECT count(*) FROM academic.grade")
        cursor.execute("SELECT count(*) FROM academic.grade")
        same("rows", cursor.fetchone()[0], count(GRADES))


@check
def adbc_lists_tables():
    with flight() as connection:
        objects = connection.adbc_get_objects(depth="tables").read_all().to_pylist()
    names = {
        f"{schema['db_schema_name']}.{table['table_name']}"
        for catalog in objects
        for schema in catalog["catalog_db_schemas"] or []
        for table in schema["db_schema_tables"] or []
    }
    for table in (GRADES, f"{GRADES}_history", EVENTS, "student_affairs.student_base"):
        assert table in names, f"{table} is not listed: {sorted(names)}"


@check
def adbc_is_told_what_is_wrong():
    def run(query, token=None):
        with flight(token) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            cursor.fetch_arrow_table()

    refused(lambda: run("SELECT * FROM academic.no_such_table"), "no_such_table")
    refused(lambda: run("SELECT 1", token="wrong"), "unauthenticated", "token")


# ---- gRPC by server reflection: no generated code, as grpcurl and buf curl do ---------------------------------------------------


class Reflected:
    """Calls methods that the server describes itself."""

    def __init__(self, channel, token=None):
        self.channel = channel
        self.metadata = [("authorization", f"Bearer {token}")] if token else []
        self.database = ProtoReflectionDescriptorDatabase(channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def call(self, service, method, **fields):
        descriptor = self.pool.FindServiceByName(service).FindMethodByName(method)
        request = message_factory.GetMessageClass(descriptor.input_type)(**fields)
        answer = message_factory.GetMessageClass(descriptor.output_type)
        kind = self.channel.unary_stream if method.startswith("Watch") else self.channel.unary_unary
        call = kind(f"/{service}/{method}", type(request).SerializeToString, answer.FromString)
        return call(request, metadata=self.metadata, timeout=TIMEOUT_S)


def reflected(token="good"):
    token = setting("QUAD_TOKEN") if token == "good" else token
    return Reflected(grpc.insecure_channel(setting("QUAD_GRPC")), token)


def status(call):
    try:
        call()
    except grpc.RpcError as error:
        assert error.details(), "the status has no message"
        return error.code()
    return grpc.StatusCode.OK


@check
def grpc_reflects_services():
    services = set(reflected().database.get_services())
    for service in (PROFILES, "grpc.health.v1.Health"):
        assert service in services, f"{service} is not among {sorted(services)}"


@check
def grpc_is_healthy():
    answer = reflected(token=None).call("grpc.health.v1.Health", "Check")
    same("health", answer.status, 1)


@check
def grpc_gets_a_profile():
    student = setting("QUAD_STUDENT")
    profile = reflected().call(PROFILES, "GetProfile", person={"student_no": student}).profile
    assert student in profile.student_nos, profile.student_nos
    same("sections", {item.section for item in profile.items}, set("ABCDEFGHIKL"))  # J, health, is off
    of_tables = [item for item in profile.items if item.HasField("value") and item.id not in ("L05", "L06")]
    assert of_tables and all(item.sources for item in of_tables), "an item with a value names no source"


@check
def grpc_reads_what_it_has_seen():
    service, student = reflected(), {"student_no": setting("QUAD_STUDENT")}
    seen = service.call(PROFILES, "GetProfile", person=student)
    again = service.call(PROFILES, "GetProfile", person=student, min_watermark=seen.watermark)
    assert seen.watermark and again.profile.snapshot >= seen.profile.snapshot, "an older state than was seen"


@check
def grpc_tells_a_past_profile():
    service, person, code = reflected(), {"student_no": setting("QUAD_STUDENT")}, grpc.StatusCode
    now = service.call(PROFILES, "GetProfile", person=person).profile
    then = service.call(PROFILES, "GetProfile", person=person, at=now.computed_at).profile
    same("version", then.profile_version, now.profile_version)
    assert then.computed_at.ToMicroseconds() > now.computed_at.ToMicroseconds(), "it does not say when it was computed"
    refusals = {"future": {"seconds": now.computed_at.seconds + 86400}, "before everything": {"seconds": 0}}
    for what, at in refusals.items():
        same(what, status(lambda: service.call(PROFILES, "GetProfile", person=person, at=at)), code.INVALID_ARGUMENT)


@check
def grpc_watches_profiles():
    service, mask = reflected(), {"paths": ["a02"]}
    events, persons = service.call(PROFILES, "WatchProfiles", item_mask=mask), 0
    for event in events:
        persons += event.WhichOneof("event") == "changed"
        if event.resume_token:
            break
    events.cancel()
    page = service.call(PROFILES, "ListProfiles", page_size=1, item_mask=mask)
    same("persons", persons, page.total_size)
    again = service.call(PROFILES, "WatchProfiles", item_mask=mask, resume_token=event.resume_token)
    assert next(again).WhichOneof("event") != "reset", "the token does not hold"
    again.cancel()


@check
def grpc_describes_items():
    sections = reflected().call(PROFILES, "DescribeProfile").sections
    same("items", sum(len(section.items) for section in sections), 102)
    same("off", [section.id for section in sections if not section.is_on], ["J"])
    for item in (item for section in sections for item in section.items if item.id not in ("L05", "L06")):
        assert bool(item.definition) != bool(item.no_source), f"{item.id} has neither SQL nor a reason, or both"


@check
def grpc_masks_items():
    mask = {"paths": ["a"]}
    profile = reflected().call(
        PROFILES, "GetProfile", person={"student_no": setting("QUAD_STUDENT")}, item_mask=mask
    ).profile
    same("sections", {item.section for item in profile.items}, {"A"})


@check
def grpc_batches():
    people = [{"student_no": setting("QUAD_STUDENT")}, {"student_no": NOBODY}]
    results = reflected().call(PROFILES, "BatchGetProfiles", persons=people).results
    same("results", [result.WhichOneof("result") for result in results], ["profile", "error"])
    same("code", results[1].error.code, grpc.StatusCode.NOT_FOUND.value[0])
    assert NOBODY not in results[1].error.message, "the message repeats the identifier"


def h2load(method, count, **fields):
    """Asks the same over and over, by connections that each have several calls under way; bytes of messages an answer."""
    if not shutil.which("h2load"):
        raise Skip("h2load (Debian: nghttp2-client) is not installed")
    descriptor = reflected().pool.FindServiceByName(PROFILES).FindMethodByName(method)
    request = message_factory.GetMessageClass(descriptor.input_type)(**fields).SerializeToString()
    with tempfile.NamedTemporaryFile() as file:
        # A gRPC frame: not compressed, and the length of the message.
        file.write(b"\0" + len(request).to_bytes(4, "big") + request)
        file.flush()
        headers = ["content-type: application/grpc", "te: trailers", f"authorization: Bearer {setting('QUAD_TOKEN')}"]
        command = ["h2load", "-n", str(count), "-c", "4", "-m", "8", "-t", "1", "-d", file.name]
        command += [part for header in headers for part in ("-H", header)]
        command.append(f"http://{setting('QUAD_GRPC')}/{PROFILES}/{method}")
        said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S).stdout
    assert f"{count} succeeded, 0 failed" in said, said
    return int(re.search(r"\((\d+)\) data", said)[1]) / count


@check
def h2load_gets_whole_profiles():
    person = {"student_no": setting("QUAD_STUDENT")}
    answer = reflected().call(PROFILES, "GetProfile", person=person)
    # An error would be a success to HTTP/2, without a message.
    same("bytes of a frame", h2load("GetProfile", 2000, person=person), 5 + answer.ByteSize())


@check
def grpc_pages_through_everyone():
    service, seen, token = reflected(), [], ""
    while True:
        page = service.call(PROFILES, "ListProfiles", page_size=50, page_token=token, item_mask={"paths": ["a"]})
        seen += [profile.person_id for profile in page.profiles]
        token = page.next_page_token
        if not token:
            break
        assert len(seen) <= page.total_size, "the pages never end"
    same("persons", len(set(seen)), page.total_size)
    same("repeats", len(seen), len(set(seen)))


@check
def grpc_resolves_identity():
    service, student = reflected(), setting("QUAD_STUDENT")
    answer = service.call(PROFILES, "ResolveIdentity", id_type="ID_TYPE_STUDENT_NO", id_value=student)
    assert student in answer.student_nos, answer
    profile = service.call(PROFILES, "GetProfile", person={"student_no": student}).profile
    same("person", answer.person_id, profile.person_id)


def pages(method, rows, **fields):
    """All rows of a call that answers page by page."""
    service, token = reflected(), ""
    while True:
        page = service.call(PROFILES, method, page_token=token, **fields)
        yield from getattr(page, rows)
        token = page.next_page_token
        if not token:
            return


@check
def grpc_explains_an_item():
    person = {"student_no": setting("QUAD_STUDENT")}
    answer = reflected().call(PROFILES, "ExplainItem", person=person, item="gpa")
    profile = reflected().call(PROFILES, "GetProfile", person=person, item_mask={"paths": ["gpa"]}).profile
    same("item", answer.item.value.double_value, profile.items[0].value.double_value)
    assert "grade_point" in answer.description.definition, answer.description
    inputs = {found.table: found.rows for found in answer.inputs}
    assert inputs[GRADES] == 1 and inputs["academic.course"] == 2, inputs
    rows = [row for row in pages("ExplainItem", "rows", person=person, item="gpa", page_size=2) if row.table == GRADES]
    with postgres() as connection:
        query = f"SELECT src, kafka_partition, kafka_offset FROM {GRADES} WHERE person_id = %s ORDER BY 2, 3"
        grades = connection.execute(query, [profile.person_id]).fetchall()
    same("rows", sorted((row.source, row.partition, row.offset) for row in rows), sorted(grades))
    assert grades and all(row.topic.endswith(GRADES) for row in rows), "no rows, or of another topic"


@check
def grpc_tells_a_timeline():
    person = {"person": {"student_no": setting("QUAD_STUDENT")}, "purpose": "PURPOSE_SAFETY"}
    whole = list(pages("GetTimeline", "events", page_size=500, **person))
    small = list(pages("GetTimeline", "events", page_size=7, **person))
    told = [[event.SerializeToString(deterministic=True) for event in events] for events in (whole, small)]
    assert len(whole) > 7 and told[0] == told[1], f"{len(whole)} events whole, {len(small)} in small pages"
    order = [(event.event_time.ToMicroseconds(), event.table) for event in whole]
    same("order", order, sorted(order))
    places = {(event.topic, event.partition, event.offset) for event in whole}
    same("repeats", len(places), len(whole))
    with postgres() as connection:
        query = f"SELECT count(*) FROM {EVENTS} WHERE person_id = person_by_number(%s, NULL)"
        passages = connection.execute(query, [setting("QUAD_STUDENT")]).fetchone()[0]
    same("passages", sum(event.table == EVENTS for event in whole), passages)
    daily = reflected().call(PROFILES, "GetTimeline", person=person["person"])
    assert EVENTS in daily.withheld_tables and all(event.table != EVENTS for event in daily.events), "trails are told"


@check
def the_example_runs():
    script = pathlib.Path(__file__).parents[2] / "examples/python/profile.py"
    command = [sys.executable, str(script), setting("QUAD_STUDENT"), "--grpc", setting("QUAD_GRPC")]
    output = subprocess.run(command, capture_output=True, text=True, timeout=2 * TIMEOUT_S, stdin=subprocess.DEVNULL)
    assert output.returncode == 0, output.stderr
    assert setting("QUAD_STUDENT") in output.stdout and GRADES in output.stdout.split("what happened")[1], output.stdout


@check
def grpc_is_told_what_is_wrong():
    code = grpc.StatusCode
    good, student = reflected(), {"student_no": setting("QUAD_STUDENT")}
    too_many = [student] * 1001
    no_such_item = {"paths": ["no_such_item"]}
    same("nobody", status(lambda: good.call(PROFILES, "GetProfile", person={"student_no": NOBODY})), code.NOT_FOUND)
    same("no key", status(lambda: good.call(PROFILES, "GetProfile")), code.INVALID_ARGUMENT)
    same("mask", status(lambda: good.call(PROFILES, "GetProfile", person=student, item_mask=no_such_item)), code.INVALID_ARGUMENT)
    same("batch", status(lambda: good.call(PROFILES, "BatchGetProfiles", persons=too_many)), code.INVALID_ARGUMENT)
    for token in (None, "wrong"):
        bad = reflected(token)
        same(f"token {token}", status(lambda: bad.call(PROFILES, "GetProfile", person=student)), code.UNAUTHENTICATED)


# ---- the tables as files --------------------------------------------------------------------------------------------------------


def delta(table):
    return deltalake.DeltaTable(str(pathlib.Path(setting("QUAD_LAKE"), *table.split("."))))


@check
def deltalake_reads_tables():
    for table in (GRADES, EVENTS):
        same(table, delta(table).to_pyarrow_dataset().count_rows(), count(f"{table}_history"))
    same("partitions", delta(EVENTS).metadata().partition_columns, ["biz_date"])


@check
def deltalake_has_each_offset_once():
    rows = delta(GRADES).to_pyarrow_table(columns=["kafka_partition", "kafka_offset"]).to_pylist()
    positions = {(row["kafka_partition"], row["kafka_offset"]) for row in rows}
    same("positions", len(positions), len(rows))


@check
def duckdb_reads_parquet():
    for table in (GRADES, EVENTS):
        files = delta(table).file_uris()
        rows = duckdb.sql("SELECT count(*) FROM read_parquet($files)", params={"files": files}).fetchall()[0][0]
        same(table, rows, count(f"{table}_history"))


@check
def duckdb_agrees_with_sql():
    query = "SELECT student_no, count(*) AS grades FROM {} GROUP BY student_no ORDER BY student_no"
    dataset = delta(GRADES).to_pyarrow_dataset()
    with duckdb.connect() as database:
        database.register("history", dataset)
        theirs = database.execute(query.format("history")).fetchall()
    with postgres() as connection:
        ours = connection.execute(query.format(f"{GRADES}_history")).fetchall()
    same("grades a student", ours, theirs)


@check
def lake_has_the_profiles():
    """They come to the lake some time after SQL has them."""
    query = "SELECT item_id, count(*) AS persons, count(value) AS told FROM {} GROUP BY item_id ORDER BY item_id"
    deadline = time.monotonic() + PROFILES_S
    while True:
        with duckdb.connect() as database:
            database.register("item", delta("profile.item").to_pyarrow_dataset())
            theirs = database.execute(query.format("item")).fetchall()
        with postgres() as connection:
            ours = connection.execute(query.format("profile.item")).fetchall()
        if ours == theirs or time.monotonic() > deadline:
            break
        time.sleep(1)
    same("persons and values of each item", theirs, ours)
    same("students", delta("profile.student").to_pyarrow_dataset().count_rows(), count("profile.student"))
    assert delta("profile.item").metadata().configuration["quad.watermark"], "the rows are of no watermark"


# ---- the topics -------------------------------------------------------------------------------------------------------------------


def kcat(*arguments):
    if not os.environ.get("QUAD_KAFKA"):
        raise Skip("QUAD_KAFKA is not set: the run is on the embedded log")
    if not shutil.which("kcat"):
        raise Skip("kcat is not installed")
    command = ["kcat", "-C", "-q", "-e", "-b", setting("QUAD_KAFKA"), "-t", f"quad.{GRADES}", *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, check=True, capture_output=True, timeout=TIMEOUT_S).stdout


@check
def kcat_reads_keys():
    key = kcat("-c", "1", "-f", "%k").decode()
    same("parts of the key", len(key.split("|")), 6)


@check
def kcat_reads_avro():
    same("single-object marker", kcat("-c", "1", "-f", "%s")[:2], b"\xc3\x01")


@check
def kcat_counts_every_record():
    with postgres() as connection:
        letters = connection.execute(
            "SELECT count(*) FROM platform.dead_letter WHERE stage = 'land' AND topic = %s", [f"quad.{GRADES}"]
        ).fetchone()[0]
    same("records and rows", len(kcat("-f", ".")), count(f"{GRADES}_history") + letters)


def wait_until_profiles_are_there():
    """A slow machine computes them some time after the day is complete; without them the checks say what is missing."""
    service, person = reflected(), {"student_no": setting("QUAD_STUDENT")}
    deadline = time.monotonic() + PROFILES_S
    with postgres() as connection:
        while time.monotonic() < deadline:
            code = status(lambda: service.call(PROFILES, "GetProfile", person=person))
            reached = connection.execute("SELECT quad_watermark()").fetchone()[0]
            if code == grpc.StatusCode.OK:
                profiles = connection.execute("SELECT quad_watermark() AS w FROM profile.student LIMIT 1").fetchone()[0]
                if profiles == reached:
                    return
            time.sleep(1)


def main():
    wait_until_profiles_are_there()
    passed = failed = skipped = 0
    for function in CHECKS:
        name = function.__name__.replace("_", " ")
        try:
            function()
        except Skip as reason:
            skipped += 1
            print(f"skip  {name}: {reason}")
        except Exception as error:
            failed += 1
            ours = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == __file__]
            print(f"FAIL  {name}: {type(error).__name__}: {error}\n      at check.py:{ours[-1].lineno}: {ours[-1].line}")
        else:
            passed += 1
            print(f"ok    {name}")
        sys.stdout.flush()
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
