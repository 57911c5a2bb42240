#!/usr/bin/env python
"""Makes the golden frames with protobuf's own Python implementation: crates/wire/testdata/*.hex, and from them fuzz/corpus/.

    python golden.py            writes the files
    python golden.py --check    writes nothing, and fails where a file is not what it would write

The message classes come from crates/wire/proto/relay.proto, which is read here, so that neither protoc nor generated code is
needed. What a frame says is below, in FRAMES; the remarks beside its bytes are read from the bytes. It knows no sockets,
and nothing of the Rust code. Frames that one version has sent are never changed: later ones are added.
"""

import re
import struct
import sys
import textwrap
from pathlib import Path

import google.protobuf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

ROOT = Path(__file__).parent.parent
PROTO = ROOT / "crates/wire/proto/relay.proto"
TESTDATA = ROOT / "crates/wire/testdata"
CORPUS = ROOT / "fuzz/corpus"

_Field = descriptor_pb2.FieldDescriptorProto
_TOKEN = re.compile(
    r"(?P<block>message|enum)\s+(?P<name>\w+)\s*\{"
    r"|(?P<label>required|optional|repeated)\s+(?P<type>\w+)\s+(?P<field>\w+)\s*=\s*(?P<number>\d+);"
    r"|(?P<value>\w+)\s*=\s*(?P<value_number>\d+);"
    r"|(?P<end>\})"
)
_SCALARS = ("int32", "uint32", "uint64", "bool", "string", "bytes")


def message_classes(source):
    """The part of proto2 that relay.proto uses: flat messages, with enums inside."""
    source = re.sub(r"//[^\n]*", "", source)
    file = descriptor_pb2.FileDescriptorProto(name="relay.proto", package="relay", syntax="proto2")
    enums = {name: f".relay.{outer}.{name}" for outer, name in re.findall(r"message (\w+) \{[^}]*enum (\w+)", source)}
    blocks = [file]
    for token in _TOKEN.finditer(source):
        if token["block"] == "message":
            blocks.append(file.message_type.add(name=token["name"]))
        elif token["block"] == "enum":
            blocks.append(blocks[-1].enum_type.add(name=token["name"]))
        elif token["label"]:
            _add_field(blocks[-1], token, enums)
        elif token["value"]:
            blocks[-1].value.add(name=token["value"], number=int(token["value_number"]))
        else:
            blocks.pop()
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = [message.name for message in file.message_type]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName("relay." + name)) for name in names}


def _add_field(message, token, enums):
    field = message.field.add(name=token["field"], number=int(token["number"]))
    field.label = _Field.Label.Value("LABEL_" + token["label"].upper())
    type_name = token["type"]
    if type_name in _SCALARS:
        field.type = _Field.Type.Value("TYPE_" + type_name.upper())
    else:
        field.type = _Field.TYPE_ENUM if type_name in enums else _Field.TYPE_MESSAGE
        field.type_name = enums.get(type_name, ".relay." + type_name)


SOURCE = PROTO.read_text()
NOW = message_classes(SOURCE)
LATER = message_classes(
    SOURCE.replace("message Hello {", "message Hello { optional int32 later = 5; optional bytes later_still = 17;")
    .replace("message Start {", "message Start { optional string later = 15;")
    .replace("enum MessageType {", "enum MessageType { LATER = 7;")
)

HOST_ID = bytes(range(0x00, 0x100, 0x11))
CHANNEL_KEY = bytes(range(0xF0, 0x00, -0x0F))
SESSION_ID = bytes.fromhex("0123456789abcdeffedcba9876543210")
MANY_SESSIONS = 1
TOKEN = "rls_example.c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I"


def hello(**v2):
    return "Hello", dict(version=1, v2=dict(host_id=HOST_ID, **v2)) if v2 else dict(version=1)


def answer(channel_id, relay_host="127.0.0.1", **v2):
    fields = dict(session_id=channel_id, relay_host=relay_host, relay_port="8002", **v2)
    return "HostProcessHelloResponse", fields


def command(message_type, **properties):
    return "Command", dict(version=1, message_type=message_type, **properties)


def start(service="ssh", client_addr="192.0.2.7:50000", **later):
    return "Start", dict(session_id=SESSION_ID, service=service, client_addr=client_addr, via="tcp", **later)


def verdict(accepted, **reason):
    return "Verdict", dict(accepted=accepted, **reason)


# Name, heading, message, and remarks that are not read from the bytes, by the bytes.
FRAMES = (
    ("hello", "Hello { version: 1 }: the first frame on a data channel.", hello()),
    (
        "hello-unknown-fields",
        "A hello from a later version: fields 5 and 17 are unknown and skipped.",
        ("Hello", dict(version=1, later=300, later_still=b"\x08\x01")),
        {"ac 02": "300: skipped", "08 01": "skipped"},
    ),
    (
        "answer",
        'HostProcessHelloResponse { session_id: 1, relay_host: "127.0.0.1", relay_port: "8002" }: the answer to a hello.',
        answer(1),
    ),
    (
        "answer-highest-id",
        "An answer with the highest channel id that we give out, from a relay reached over IPv6.",
        answer(2**31 - 1, "2001:db8::1"),
    ),
    (
        "answer-negative-id",
        "An answer with a negative channel id, which we never give out and accept from others.",
        answer(-1),
    ),
    (
        "open",
        "Command { version: 1, message_type: CONNECTION_OPEN, open_properties: { assigned_to_session: 1 } }: a client was "
        "assigned.",
        command("CONNECTION_OPEN", open_properties=dict(assigned_to_session=1)),
    ),
    (
        "drop",
        "Command { version: 1, message_type: CONNECTION_DROP, drop_properties: { session_id: 1 } }: the client sent its last "
        "byte.",
        command("CONNECTION_DROP", drop_properties=dict(session_id=1)),
    ),
    (
        "drop-two-byte-id",
        "A drop whose channel id takes two bytes.",
        command("CONNECTION_DROP", drop_properties=dict(session_id=300)),
        {"ac 02": "300: 0x2c + (0x02 << 7)"},
    ),
    (
        "command-unknown-type",
        "A command from a later version: type 7 is unknown in version 1 and ignored.",
        command("LATER"),
        {"07": "unknown: the whole command is ignored"},
    ),
    (
        "hello-v2-command",
        "A hello of version 2 that opens a command channel, with a token, for the services default and ssh.",
        hello(role=1, token=TOKEN, service=["default", "ssh"]),
    ),
    (
        "hello-v2-command-weighed",
        "A hello of version 2 of a host that comes again, weighs three times as much as others and takes 50 sessions at once.",
        hello(role=1, channel_key=CHANNEL_KEY, service=["ssh"], weight=300, sessions_max=50),
    ),
    (
        "hello-v2-data",
        "A hello of version 2 that opens a data channel for the service ssh.",
        hello(role=2, channel_key=CHANNEL_KEY, service=["ssh"]),
    ),
    (
        "hello-v2-data-many-sessions",
        "A hello of version 2 that opens a data channel for the service ssh, by a host that has one session after another on it.",
        hello(role=2, channel_key=CHANNEL_KEY, service=["ssh"], feature=[MANY_SESSIONS]),
    ),
    (
        "hello-v2-unknown-role",
        "A hello of version 2 for a role that there is not. It is read, so that it can be answered.",
        hello(role=5),
    ),
    (
        "answer-v2-command",
        "The answer that makes a connection a command channel: there is no channel id; the channel key, where ssh is served, "
        "and the liveness times.",
        answer(
            0,
            v2=dict(
                channel_key=CHANNEL_KEY,
                service=[dict(name="ssh", clients="vps.example.com:8002")],
                suspect_after_ms=5000,
                gone_after_ms=30000,
            ),
        ),
    ),
    (
        "answer-v2-data",
        "The answer that makes a connection a data channel of version 2: its field 16 is there, and empty.",
        answer(1, v2=dict()),
    ),
    (
        "answer-v2-data-many-sessions",
        "The answer that makes a connection a data channel of version 2 that carries one session after another.",
        answer(1, v2=dict(feature=[MANY_SESSIONS])),
    ),
    (
        "answer-v2-refused",
        "The answer to a host that is refused.",
        answer(0, v2=dict(refusal=dict(reason="draining", detail="the relay is leaving", retry_after_ms=1000))),
    ),
    ("ping", "A ping.", command("PING", ping_properties=dict(nonce=7))),
    (
        "pong-highest-nonce",
        "A pong with the highest nonce, 2^64-1, which takes ten bytes.",
        command("PONG", pong_properties=dict(nonce=2**64 - 1)),
    ),
    (
        "session-ended",
        "A session ended: both sides had finished, 5 bytes went to the host and 300 to the client.",
        command(
            "SESSION_ENDED",
            session_ended_properties=dict(
                session_id=SESSION_ID, reason="finished", bytes_to_host=5, bytes_to_client=300
            ),
        ),
    ),
    (
        "leaving",
        "A relay leaves, and says when to come back.",
        command("LEAVING", leaving_properties=dict(reason="draining", retry_after_ms=1000)),
    ),
    ("leaving-host", "A host leaves.", command("LEAVING", leaving_properties=dict(reason="draining"))),
    (
        "pool-wanted",
        "The relay wants four idle channels of the service ssh.",
        command("POOL_WANTED", pool_wanted_properties=dict(service="ssh", idle=4)),
    ),
    (
        "pool-bounds",
        "A host keeps two to 300 idle channels of the service ssh.",
        command("POOL_BOUNDS", pool_bounds_properties=dict(service="ssh", idle_min=2, idle_max=300)),
    ),
    (
        "pool-bounds-none",
        "A host takes no sessions of the service ssh for now.",
        command("POOL_BOUNDS", pool_bounds_properties=dict(service="ssh", idle_min=0, idle_max=0)),
    ),
    (
        "pool-surplus",
        "The relay is to close three idle channels of the service ssh.",
        command("POOL_SURPLUS", pool_surplus_properties=dict(service="ssh", idle=3)),
    ),
    ("start", "A session of the service ssh begins, for a client at 192.0.2.7.", start()),
    ("start-ipv6", "A session begins, for a client over IPv6.", start("default", "[2001:db8::1]:50000")),
    ("start-unknown-address", "A session begins, for a client whose address is not known.", start(client_addr="")),
    (
        "start-unknown-fields",
        "A start frame from a later version: field 15 is unknown and skipped.",
        start(later="new"),
        {"6e 65 77": "skipped"},
    ),
    ("verdict-accepted", "The host serves the session.", verdict(True)),
    ("verdict-rejected", "The host does not serve the session, and says why.", verdict(False, reason="target_unreachable")),
    ("verdict-rejected-without-reason", "The host does not serve the session, and does not say why.", verdict(False)),
)

TARGETS = {
    "Hello": "hello",
    "HostProcessHelloResponse": "hello",
    "Command": "command",
    "Start": "start",
    "Verdict": "start",
}


def files():
    """All that is made: path and content."""
    for name, heading, (message_name, fields), *remarks in FRAMES:
        extended = _is_later(message_name, fields)
        message = (LATER if extended else NOW)[message_name](**fields)
        payload = message.SerializeToString()
        frame = struct.pack("!I", len(payload)) + payload
        body = _body(payload, NOW[message_name].DESCRIPTOR, remarks[0] if remarks else {})
        yield TESTDATA / f"{name}.hex", f"{_heading(heading, extended)}\n\n{body}".encode()
        yield CORPUS / TARGETS[message_name] / f"seed-{name}", payload
        # One chunk length, 3, then the stream.
        yield CORPUS / "frame" / f"seed-{name}", b"\x01\x03" + frame


def _is_later(message_name, fields):
    known = NOW[message_name].DESCRIPTOR.fields_by_name
    return any(field not in known for field in fields) or fields.get("message_type") == "LATER"


def _heading(heading, extended):
    beyond = ", extended by what is unknown here" if extended else ""
    made = (
        f"Made with protobuf's own Python implementation ({google.protobuf.__version__}: `SerializeToString` on "
        f"proto/relay.proto{beyond}), the length put in front."
    )
    return f"{_comment(heading)}\n#\n{_comment(made)}"


def _comment(text):
    return textwrap.fill(text, 120, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _body(payload, descriptor, remarks):
    rows = [(struct.pack("!I", len(payload)), "length: " + _follow(len(payload)))]
    rows += _message_rows(payload, descriptor)
    rows = [(data.hex(" "), remark) for data, remark in rows]
    width = max(len(data) for data, _ in rows)
    return "".join(f"{data:{width}}  # {remarks.get(data, remark)}\n" for data, remark in rows)


def _message_rows(payload, descriptor):
    """Each part of a message with what it says."""
    rows = []
    while payload:
        key, key_bytes, payload = _varint(payload)
        number, wire_type = key >> 3, key & 7
        field = descriptor.fields_by_number.get(number)
        kind = {0: "varint", 2: "length-delimited"}[wire_type]
        rows.append((key_bytes, f"field {number} ({field.name if field else 'unknown'}), {kind}"))
        value, value_bytes, payload = _varint(payload)
        if wire_type == 0:
            rows.append((value_bytes, _number_remark(value, field)))
        else:
            rows.append((value_bytes, _follow(value)))
            rows += _value_rows(payload[:value], field)
            payload = payload[value:]
    return rows


def _value_rows(value, field):
    if field and field.type == _Field.TYPE_MESSAGE:
        return _message_rows(value, field.message_type)
    parts = [value[at : at + 16] for at in range(0, len(value), 16)]
    if field and field.type == _Field.TYPE_STRING:
        return [(part, f'"{part.decode()}"') for part in parts]
    return [(part, f"{len(part)} bytes as they are") for part in parts]


def _number_remark(value, field):
    if field is None:
        return str(value)
    if field.type == _Field.TYPE_BOOL:
        return ("false", "true")[value]
    if field.type == _Field.TYPE_ENUM:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else "unknown"
    if field.type == _Field.TYPE_INT32 and value >= 2**63:
        return f"{value - 2**64}, as 64 bits of two's complement"
    return str(value)


def _follow(count):
    return "1 byte follows" if count == 1 else f"{count} bytes follow"


def _varint(data):
    """(value, its bytes, the rest)."""
    end = next(at for at, byte in enumerate(data) if byte < 0x80) + 1
    value = sum((byte & 0x7F) << (7 * at) for at, byte in enumerate(data[:end]))
    return value, data[:end], data[end:]


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    different = 0
    for path, content in files():
        if path.exists() and path.read_bytes() == content:
            continue
        different += 1
        print("differs" if check else "written", path.relative_to(ROOT))
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    if check and different:
        sys.exit(f"{different} files differ; python interop/golden.py writes them")


if __name__ == "__main__":
    main()
