"""Messages and frames of protocol version 1, for host.py and relay.py. Knows no sockets and makes no decisions.

The message classes come from relay.proto, which is read here, so that neither protoc nor generated code is needed.
"""

import re
import struct
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

VERSION = 1
FRAME_MAX = 65536

_FIELD = re.compile(r"(required|optional)\s+(\w+)\s+(\w+)\s*=\s*(\d+);")
_VALUE = re.compile(r"(\w+)\s*=\s*(\d+);")
_BLOCK = re.compile(r"(message|enum)\s+(\w+)\s*\{([^}]*)\}")


def _file_descriptor(source):
    """The part of proto2 that relay.proto uses: flat messages and enums, singular fields."""
    source = re.sub(r"//[^\n]*", "", source)
    file = descriptor_pb2.FileDescriptorProto(name="relay.proto", package="relay", syntax="proto2")
    blocks = _BLOCK.findall(source)
    enums = {name for kind, name, _ in blocks if kind == "enum"}
    for kind, name, body in blocks:
        if kind == "enum":
            enum = file.enum_type.add(name=name)
            for value, number in _VALUE.findall(body):
                enum.value.add(name=value, number=int(number))
        else:
            message = file.message_type.add(name=name)
            for label, type_name, field, number in _FIELD.findall(body):
                _add_field(message, label, type_name, field, int(number), enums)
    return file


def _add_field(message, label, type_name, name, number, enums):
    proto = descriptor_pb2.FieldDescriptorProto
    field = message.field.add(name=name, number=number, label=proto.Label.Value("LABEL_" + label.upper()))
    if type_name in ("int32", "string"):
        field.type = proto.Type.Value("TYPE_" + type_name.upper())
    else:
        field.type = proto.TYPE_ENUM if type_name in enums else proto.TYPE_MESSAGE
        field.type_name = ".relay." + type_name


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file_descriptor((Path(__file__).parent / "relay.proto").read_text()))


def _class(name):
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName("relay." + name))


Hello = _class("Hello")
HostProcessHelloResponse = _class("HostProcessHelloResponse")
Command = _class("Command")
CONNECTION_OPEN = 0
CONNECTION_DROP = 1


def hello():
    return Hello(version=VERSION)


def hello_response(channel_id, relay_host, relay_port):
    return HostProcessHelloResponse(session_id=channel_id, relay_host=relay_host, relay_port=str(relay_port))


def connection_open(channel_id):
    command = Command(version=VERSION, message_type=CONNECTION_OPEN)
    command.open_properties.assigned_to_session = channel_id
    return command


def connection_drop(channel_id):
    command = Command(version=VERSION, message_type=CONNECTION_DROP)
    command.drop_properties.session_id = channel_id
    return command


def frame(message):
    """The message as it goes on the wire."""
    payload = message.SerializeToString()
    return struct.pack("!I", len(payload)) + payload


def take_frame(buffer):
    """(payload, rest) of the first frame in `buffer`, or None while it is incomplete."""
    if len(buffer) < 4:
        return None
    (length,) = struct.unpack_from("!I", buffer)
    if length > FRAME_MAX:
        raise ValueError(f"frame of {length} bytes exceeds {FRAME_MAX}")
    if len(buffer) < 4 + length:
        return None
    return bytes(buffer[4 : 4 + length]), bytes(buffer[4 + length :])


class Writer:
    """Writes to a Twisted transport: at once, gathered over a moment, or a byte at a time. Order is always kept."""

    COALESCE_SECONDS = 0.05

    def __init__(self, reactor, transport, coalesce=False, split=False):
        self.reactor, self.transport = reactor, transport
        self.coalesce, self.split = coalesce, split
        self.pending = bytearray()
        self.then_close = False
        transport.setTcpNoDelay(True)

    def frame(self, message):
        """Writes a message in the manner that was asked for."""
        if self.coalesce or self.split:
            self._queue(frame(message))
        else:
            self.raw(frame(message))

    def raw(self, data):
        """Writes a session's bytes, behind whatever frame still waits."""
        if self.pending:
            self.pending += data
        else:
            self.transport.write(data)

    def close(self):
        """Closes once all has been written."""
        if self.pending:
            self.then_close = True
        else:
            self.transport.loseConnection()

    def _queue(self, data):
        if not self.pending:
            self.reactor.callLater(0 if self.split else self.COALESCE_SECONDS, self._turn)
        self.pending += data

    def _turn(self):
        size = 1 if self.split else len(self.pending)
        self.transport.write(bytes(self.pending[:size]))
        del self.pending[:size]
        if self.pending:
            self.reactor.callLater(0, self._turn)
        elif self.then_close:
            self.transport.loseConnection()
