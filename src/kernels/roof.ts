/** Kernels that measure the limits of the machine: memory reads and inner products. */
import {
  add,
  call,
  constant,
  divideUnsigned,
  type Func,
  type I32,
  lessUnsigned,
  type Module,
  multiply,
  repeat,
  v,
  when,
} from '../wasm/assembler.ts';
import { recordLayout } from './record.ts';

const LINE_BYTES = 256;

/** from: first byte; lines: pieces of 256 bytes. */
export const readRecord = recordLayout('from', 'lines');

/** Bytes as whole lines. */
export const readLines = (bytes: number): number => Math.floor(bytes / LINE_BYTES);

/** Exports the step kernel `read`, which loads the thread's share of the lines once: the upper limit of memory-bound kernels. */
export function readKernel(module: Module): Func {
  const f = module.func('read', ['i32', 'i32', 'i32']);
  const [record, thread, threads] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2)];
  const [line, end, at] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const sums = f.array('v128', 8);
  const lines = readRecord.load(record, 'lines');
  const share = (n: I32): I32 => divideUnsigned(multiply(lines, n), threads.get);
  return f.emit(
    line.set(share(thread.get)),
    end.set(share(add(thread.get, constant(1)))),
    at.set(add(readRecord.load(record, 'from'), multiply(line.get, constant(LINE_BYTES)))),
    when(lessUnsigned(line.get, end.get), [
      repeat(
        line,
        1,
        end.get,
        ...[0, LINE_BYTES / 2].flatMap((half) =>
          sums.map((sum, i) => sum.set(v.xor(sum.get, v.load(at.get, half + i * 16)))),
        ),
        at.set(add(at.get, constant(LINE_BYTES))),
      ),
    ]),
    // Stored, so that the loads are not optimized away.
    ...sums.map((sum, i) => v.store(module.scratch, sum.get, i * 16)),
  );
}

/** Operands of a panel (tile.ts), and how often it runs. */
export const tileRecord = recordLayout('x', 'xStride', 'w', 'steps', 'rows', 'calls');

/** Exports the step kernel `tile_NAME`: every thread calls the panel on the same operands, with totals of its own. */
export function tileKernel(module: Module, panel: Func): Func {
  const f = module.func(`tile_${panel.name}`, ['i32', 'i32', 'i32']);
  const record = f.param('i32', 0);
  const n = f.local('i32');
  const argument = (name: (typeof tileRecord.names)[number]) => tileRecord.load(record, name);
  return f.emit(
    n.set(constant(0)),
    repeat(
      n,
      1,
      argument('calls'),
      call(
        panel,
        argument('x'),
        argument('xStride'),
        argument('w'),
        module.scratch,
        argument('steps'),
        argument('rows'),
      ),
    ),
  );
}
