from __future__ import annotations

import grpc_tools
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from secformer_rt.transport import frames, generate, grpc_link, wire_pb2


def test_committed_module_is_that_of_the_proto_file(tmp_path):
    assert grpc_tools
    module, stub, descriptors = generate.generate(tmp_path)
    committed = FileDescriptorProto()
    wire_pb2.DESCRIPTOR.CopyToProto(committed)
    fresh = FileDescriptorSet.FromString(descriptors.read_bytes()).file[0]
    for proto in (committed, fresh):
        proto.ClearField("source_code_info")
        for message in proto.message_type:
            for field in message.field:
                field.ClearField("json_name")
    assert committed == fresh
    here = generate.PROTO_FILE.parents[1] / "secformer_rt" / "transport"
    # Another compiler version may write other Python for the same contract; the same version may not.
    version = [line for line in module.read_text().splitlines() if "Protobuf Python Version" in line]
    if version[0] in (here / module.name).read_text():
        assert module.read_text() == (here / module.name).read_text()
        assert stub.read_text() == (here / stub.name).read_text()


def test_every_kind_of_the_contract_has_a_name_here():
    names = dict(wire_pb2.Frame.Kind.items())
    del names["KIND_UNSPECIFIED"]
    assert names == {kind.name: kind.value for kind in frames.Kind}


def test_the_calls_of_the_contract():
    assert grpc_link.SERVICE == "secformer_rt.v1.Party"
    assert grpc_link.RPC_NAMES == ("Peer", "Supply", "Provision", "Infer", "Diagnose")


def test_every_control_message_has_one_field():
    fields = {field.message_type.name for field in wire_pb2.Control.DESCRIPTOR.fields}
    assert fields == {"Manifest", "Accepted", "Report", "Seed", "Prepared"}


def test_generate_says_what_it_refuses(tmp_path, monkeypatch):
    broken = tmp_path / "broken.proto"
    broken.write_text("no proto at all")
    monkeypatch.setattr(generate, "PROTO_FILE", broken)
    with pytest.raises(RuntimeError, match=r"broken\.proto"):
        generate.generate(tmp_path / "out")
