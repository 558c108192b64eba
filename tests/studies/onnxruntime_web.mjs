// Runs policies in onnxruntime-web (WebAssembly) and compares them with what they should give.
// node onnxruntime_web.mjs CASES.json, with onnxruntime-web installed in the folder it is called from.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const ort = createRequire(process.cwd() + "/")("onnxruntime-web");
ort.env.wasm.numThreads = 1;

const ARRAYS = {
  float32: Float32Array, float64: Float64Array, uint8: Uint8Array, int8: Int8Array, int32: Int32Array, int64: BigInt64Array,
};

function tensor({ dtype, shape, data }) {
  const values = dtype === "int64" ? data.map(BigInt) : data;
  return new ort.Tensor(dtype, ARRAYS[dtype].from(values), shape);
}

function largestDifference(found, wanted) {
  const numbers = Array.from(found.data, Number);
  if (numbers.length !== wanted.data.length) throw new Error(`${numbers.length} numbers, not ${wanted.data.length}`);
  return Math.max(...numbers.map((x, i) => Math.abs(x - wanted.data[i])));
}

for (const example of JSON.parse(readFileSync(process.argv[2]))) {
  const session = await ort.InferenceSession.create(example.file);
  const given = Object.fromEntries(Object.entries(example.inputs).map(([name, array]) => [name, tensor(array)]));
  const found = await session.run(given);
  const gaps = Object.entries(example.outputs).map(([name, wanted]) => largestDifference(found[name], wanted));
  console.log(JSON.stringify({ name: example.name, worst: Math.max(...gaps) }));
}
