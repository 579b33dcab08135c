# mypy: ignore-errors
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Frame(_message.Message):
    __slots__ = ("sequence", "kind", "tag", "total", "payload")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Frame.Kind]
        HELLO: _ClassVar[Frame.Kind]
        DATA: _ClassVar[Frame.Kind]
        CONTROL: _ClassVar[Frame.Kind]
        PROGRESS: _ClassVar[Frame.Kind]
        ABORT: _ClassVar[Frame.Kind]
        END: _ClassVar[Frame.Kind]
    KIND_UNSPECIFIED: Frame.Kind
    HELLO: Frame.Kind
    DATA: Frame.Kind
    CONTROL: Frame.Kind
    PROGRESS: Frame.Kind
    ABORT: Frame.Kind
    END: Frame.Kind
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    kind: Frame.Kind
    tag: int
    total: int
    payload: bytes
    def __init__(self, sequence: _Optional[int] = ..., kind: _Optional[_Union[Frame.Kind, str]] = ..., tag: _Optional[int] = ..., total: _Optional[int] = ..., payload: _Optional[bytes] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol_version", "role", "run_id", "plan_digest", "manifest_digest", "preset", "fixed_point", "package_version", "purpose", "prepared", "lacking")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PRESET_FIELD_NUMBER: _ClassVar[int]
    FIXED_POINT_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_VERSION_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    PREPARED_FIELD_NUMBER: _ClassVar[int]
    LACKING_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    role: str
    run_id: bytes
    plan_digest: bytes
    manifest_digest: bytes
    preset: str
    fixed_point: str
    package_version: str
    purpose: str
    prepared: _containers.RepeatedScalarFieldContainer[bytes]
    lacking: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, protocol_version: _Optional[int] = ..., role: _Optional[str] = ..., run_id: _Optional[bytes] = ..., plan_digest: _Optional[bytes] = ..., manifest_digest: _Optional[bytes] = ..., preset: _Optional[str] = ..., fixed_point: _Optional[str] = ..., package_version: _Optional[str] = ..., purpose: _Optional[str] = ..., prepared: _Optional[_Iterable[bytes]] = ..., lacking: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Abort(_message.Message):
    __slots__ = ("code", "message", "role")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    role: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., role: _Optional[str] = ...) -> None: ...

class Control(_message.Message):
    __slots__ = ("manifest", "accepted", "report", "seed", "prepared")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    PREPARED_FIELD_NUMBER: _ClassVar[int]
    manifest: Manifest
    accepted: Accepted
    report: Report
    seed: Seed
    prepared: Prepared
    def __init__(self, manifest: _Optional[_Union[Manifest, _Mapping]] = ..., accepted: _Optional[_Union[Accepted, _Mapping]] = ..., report: _Optional[_Union[Report, _Mapping]] = ..., seed: _Optional[_Union[Seed, _Mapping]] = ..., prepared: _Optional[_Union[Prepared, _Mapping]] = ...) -> None: ...

class Manifest(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: bytes
    def __init__(self, json: _Optional[bytes] = ...) -> None: ...

class Accepted(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Report(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: bytes
    def __init__(self, json: _Optional[bytes] = ...) -> None: ...

class Prepared(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: bytes
    def __init__(self, run_id: _Optional[bytes] = ...) -> None: ...

class Seed(_message.Message):
    __slots__ = ("seed",)
    SEED_FIELD_NUMBER: _ClassVar[int]
    seed: bytes
    def __init__(self, seed: _Optional[bytes] = ...) -> None: ...
