"""Writes a GGUF file again with its matrices in another type; everything else is copied.

    python requantise.py IN.gguf OUT.gguf Q8_0

Needs `pip install gguf`. The matrices are dequantised first, so that no type gets better than the file was.
"""

import sys

import gguf
import numpy


def main():
    source, target, name = sys.argv[1:]
    kind = gguf.GGMLQuantizationType[name]
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, architecture)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        inner = field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(field.name, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        shape = [int(n) for n in reversed(tensor.shape)]
        if len(shape) < 2:
            writer.add_tensor(tensor.name, values.reshape(shape))
        else:
            writer.add_tensor(tensor.name, gguf.quants.quantize(values.reshape(shape), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
