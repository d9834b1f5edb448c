from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class InferService(_message.Message):
    __slots__ = ("port", "services")
    class Service(_message.Message):
        __slots__ = ("name", "workflows")
        NAME_FIELD_NUMBER: _ClassVar[int]
        WORKFLOWS_FIELD_NUMBER: _ClassVar[int]
        name: str
        workflows: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, name: _Optional[str] = ..., workflows: _Optional[_Iterable[str]] = ...) -> None: ...
    PORT_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    port: int
    services: _containers.RepeatedCompositeFieldContainer[InferService.Service]
    def __init__(self, port: _Optional[int] = ..., services: _Optional[_Iterable[_Union[InferService.Service, _Mapping]]] = ...) -> None: ...

class Workflows(_message.Message):
    __slots__ = ("workflows",)
    class Dependency(_message.Message):
        __slots__ = ("name",)
        NAME_FIELD_NUMBER: _ClassVar[int]
        name: str
        def __init__(self, name: _Optional[str] = ...) -> None: ...
    class Node(_message.Message):
        __slots__ = ("name", "type", "dependencies")
        NAME_FIELD_NUMBER: _ClassVar[int]
        TYPE_FIELD_NUMBER: _ClassVar[int]
        DEPENDENCIES_FIELD_NUMBER: _ClassVar[int]
        name: str
        type: str
        dependencies: _containers.RepeatedCompositeFieldContainer[Workflows.Dependency]
        def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ..., dependencies: _Optional[_Iterable[_Union[Workflows.Dependency, _Mapping]]] = ...) -> None: ...
    class Workflow(_message.Message):
        __slots__ = ("name", "nodes")
        NAME_FIELD_NUMBER: _ClassVar[int]
        NODES_FIELD_NUMBER: _ClassVar[int]
        name: str
        nodes: _containers.RepeatedCompositeFieldContainer[Workflows.Node]
        def __init__(self, name: _Optional[str] = ..., nodes: _Optional[_Iterable[_Union[Workflows.Node, _Mapping]]] = ...) -> None: ...
    WORKFLOWS_FIELD_NUMBER: _ClassVar[int]
    workflows: _containers.RepeatedCompositeFieldContainer[Workflows.Workflow]
    def __init__(self, workflows: _Optional[_Iterable[_Union[Workflows.Workflow, _Mapping]]] = ...) -> None: ...

class Resource(_message.Message):
    __slots__ = ("model_toolkit_path", "model_toolkit_file", "general_model_path", "general_model_file")
    MODEL_TOOLKIT_PATH_FIELD_NUMBER: _ClassVar[int]
    MODEL_TOOLKIT_FILE_FIELD_NUMBER: _ClassVar[int]
    GENERAL_MODEL_PATH_FIELD_NUMBER: _ClassVar[int]
    GENERAL_MODEL_FILE_FIELD_NUMBER: _ClassVar[int]
    model_toolkit_path: _containers.RepeatedScalarFieldContainer[str]
    model_toolkit_file: _containers.RepeatedScalarFieldContainer[str]
    general_model_path: _containers.RepeatedScalarFieldContainer[str]
    general_model_file: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model_toolkit_path: _Optional[_Iterable[str]] = ..., model_toolkit_file: _Optional[_Iterable[str]] = ..., general_model_path: _Optional[_Iterable[str]] = ..., general_model_file: _Optional[_Iterable[str]] = ...) -> None: ...

class ModelToolkit(_message.Message):
    __slots__ = ("engines",)
    class Engine(_message.Message):
        __slots__ = ("name", "reloadable_meta", "model_dir", "gpu_ids", "use_gpu", "runtime_thread_num", "batch_infer_size")
        NAME_FIELD_NUMBER: _ClassVar[int]
        RELOADABLE_META_FIELD_NUMBER: _ClassVar[int]
        MODEL_DIR_FIELD_NUMBER: _ClassVar[int]
        GPU_IDS_FIELD_NUMBER: _ClassVar[int]
        USE_GPU_FIELD_NUMBER: _ClassVar[int]
        RUNTIME_THREAD_NUM_FIELD_NUMBER: _ClassVar[int]
        BATCH_INFER_SIZE_FIELD_NUMBER: _ClassVar[int]
        name: str
        reloadable_meta: str
        model_dir: str
        gpu_ids: _containers.RepeatedScalarFieldContainer[int]
        use_gpu: bool
        runtime_thread_num: int
        batch_infer_size: int
        def __init__(self, name: _Optional[str] = ..., reloadable_meta: _Optional[str] = ..., model_dir: _Optional[str] = ..., gpu_ids: _Optional[_Iterable[int]] = ..., use_gpu: bool = ..., runtime_thread_num: _Optional[int] = ..., batch_infer_size: _Optional[int] = ...) -> None: ...
    ENGINES_FIELD_NUMBER: _ClassVar[int]
    engines: _containers.RepeatedCompositeFieldContainer[ModelToolkit.Engine]
    def __init__(self, engines: _Optional[_Iterable[_Union[ModelToolkit.Engine, _Mapping]]] = ...) -> None: ...
