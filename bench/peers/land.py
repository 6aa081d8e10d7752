"""The loop that a team writes before it looks further: Kafka to Delta Lake in Python, rows only, no guarantee.

Usage: land.py BROKERS TOPIC RECORDS SCHEMA.avsc TABLE_FOLDER; prints the seconds that landing took.
"""
import io
import json
import sys
import time

import fastavro
import pyarrow as pa
from confluent_kafka import Consumer
from deltalake import write_deltalake

BATCH_RECORDS = 100_000

brokers, topic, records, schema_file, folder = sys.argv[1:]
schema = fastavro.parse_schema(json.load(open(schema_file)))
consumer = Consumer({
    "bootstrap.servers": brokers, "group.id": f"peer-{time.time_ns()}", "auto.offset.reset": "earliest",
    "enable.auto.commit": False, "queued.min.messages": 200_000,
})
consumer.subscribe([topic])
started, landed, rows, first = time.monotonic(), 0, [], None
while landed + len(rows) < int(records):
    for message in consumer.consume(10_000, timeout=1.0):
        first = first or time.monotonic()
        # Ten bytes of Avro's single-object header, then the body.
        rows.append(fastavro.schemaless_reader(io.BytesIO(message.value()[10:]), schema))
    if len(rows) >= BATCH_RECORDS or (rows and landed + len(rows) >= int(records)):
        write_deltalake(folder, pa.Table.from_pylist(rows), mode="append")
        consumer.commit(asynchronous=False)
        landed, rows = landed + len(rows), []
# Joining the group is not counted against it.
print(time.monotonic() - (first or started))
