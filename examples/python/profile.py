"""Asks a running Quad for one student: her profile, where an item of it comes from, and what happened to her.

    pip install grpcio grpcio-reflection
    QUAD_TOKEN=… python examples/python/profile.py 2024030001 --item gpa

The token must be of role counselor or admin and comes from the environment, never from the command line. The server describes
its own messages (reflection), so there is no generated code here; with code made of proto/quad/profile/v1/profile.proto the calls
and fields are the same.
"""

import argparse
import os
from datetime import datetime

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "quad.profile.v1.ProfileService"
TIMEOUT_S = 30


class Profiles:
    """The calls of the profile service that answer once; fields of the request are keyword arguments."""

    def __init__(self, address, token):
        self.channel = grpc.insecure_channel(address)  # with [query.tls]: grpc.secure_channel and the CA's certificate
        self.metadata = [("authorization", f"Bearer {token}")]
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))
        self.service = pool.FindServiceByName(SERVICE)

    def call(self, method, **fields):
        described = self.service.FindMethodByName(method)
        request = message_factory.GetMessageClass(described.input_type)(**fields)
        answer = message_factory.GetMessageClass(described.output_type)
        ask = self.channel.unary_unary(f"/{SERVICE}/{method}", type(request).SerializeToString, answer.FromString)
        return ask(request, metadata=self.metadata, timeout=TIMEOUT_S)

    def pages(self, method, rows, **fields):
        """All rows of a call that answers page by page; `rows` is the answer's field that has them."""
        token = ""
        while True:
            page = self.call(method, page_token=token, **fields)
            yield from getattr(page, rows)
            token = page.next_page_token
            if not token:
                return


def plain(value):
    """A value of an item or field as Python has it."""
    kind = value.WhichOneof("kind")
    if kind == "list_value":
        return [plain(part) for part in value.list_value.values]
    if kind == "object_value":
        return {name: plain(part) for name, part in value.object_value.fields.items()}
    if kind == "timestamp_value":
        return value.timestamp_value.ToJsonString()
    return getattr(value, kind)


def name(message, field):
    """The name of an enum's value."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True).get(field, "")


def row(found):
    fields = {field: plain(value) for field, value in sorted(found.fields.items())}
    place = f"{found.source}, {found.topic}/{found.partition} at {found.offset}"
    return f"{found.event_time.ToJsonString()}  {found.table}  {fields}  ({place})"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("student_no", help="学号")
    arguments.add_argument("--item", default="gpa", help="which item to explain, by id or name")
    arguments.add_argument("--purpose", default="PURPOSE_STUDY_HELP", help="what for: it decides what is shown, and is recorded")
    arguments.add_argument("--at", type=datetime.fromisoformat, metavar="TIME", help="the profile as it was then: 2026-10-01T08:00:00+08:00")
    arguments.add_argument("--grpc", default="127.0.0.1:50051", metavar="HOST:PORT")
    given = arguments.parse_args()
    profiles = Profiles(given.grpc, os.environ["QUAD_TOKEN"])
    person = {"person": {"student_no": given.student_no}, "purpose": given.purpose}

    at = {"at": {"seconds": int(given.at.timestamp())}} if given.at else {}
    answer = profiles.call("GetProfile", item_mask={"paths": ["a", given.item]}, **at, **person)
    print(f"person {answer.profile.person_id}, student numbers {', '.join(answer.profile.student_nos)}")
    for item in answer.profile.items:
        value = plain(item.value) if item.HasField("value") else name(item, "state")
        print(f"  {item.id} {item.name}: {value}")

    # Everything below is at least as new as the profile above.
    person["min_watermark"] = answer.watermark
    explained = profiles.call("ExplainItem", item=given.item, page_size=1, **person)
    print(f"\n{explained.item.id} {explained.item.name}, window {explained.description.window}, is\n{explained.description.definition}")
    for table in explained.inputs:
        print(f"  reads {table.table}: {name(table, 'rows')}")
    for found in profiles.pages("ExplainItem", "rows", item=given.item, **person):
        print(f"  {row(found)}")

    print("\nwhat happened")
    for event in profiles.pages("GetTimeline", "events", **person):
        print(f"  {row(event)}")


if __name__ == "__main__":
    main()
