/**
 * The step kernel of matrix products: divides the lane groups among the threads, cuts their share into blocks of groups
 * that stay in the second-level cache while all rows of x pass in tiles, and adds bias and residual.
 *
 *   out[t][n] = (sum + bias[n]) + out[t][n]        bias and the old content where the record asks for them
 *
 * Sums go to the thread's scratch first: [tokens of the tile][groups of the block][16]. Storages whose codes cost much to
 * unpack have them unpacked there too, once for all rows, behind the sums.
 */
import {
  add,
  and,
  call,
  constant,
  divideUnsigned,
  doWhile,
  type Func,
  f32,
  type I32,
  type Local,
  lessUnsigned,
  loadI32,
  type Module,
  multiply,
  not,
  notEqual,
  or,
  repeat,
  type Statement,
  smaller,
  subtract,
  v,
  when,
} from '../wasm/assembler.ts';
import { LANES } from './layout.ts';
import { columnShare } from './loops.ts';
import { recordLayout } from './record.ts';
import type { TileShape } from './tile.ts';

/**
 * x: rows of f32 or quantized activations, `xStride` bytes apart; w: lane groups of `groupBytes`; bias: 0 or [n] f32 padded
 * to groups; out: rows of f32; steps: columns or blocks along k; rows: address of the row count; blockGroups: groups per
 * cache block, from `blockGroups`; add: 1 to keep what out holds.
 */
export const matmulRecord = recordLayout(
  'x',
  'xStride',
  'w',
  'groupBytes',
  'bias',
  'out',
  'outStride',
  'steps',
  'groups',
  'rows',
  'blockGroups',
  'add',
);

/** Weights of one block, to stay in the second-level cache. */
const BLOCK_BYTES = 256 * 1024;
const MOST_GROUPS = 64;

/** Groups per cache block for groups of so many bytes, as tiles read them. */
export const blockGroups = (groupBytes: number): number =>
  Math.max(1, Math.min(MOST_GROUPS, Math.floor(BLOCK_BYTES / groupBytes)));

/** Scratch bytes that sums need. */
export const matmulScratch = (tokens: number): number => tokens * MOST_GROUPS * LANES * 4;

/** Where unpacked weights lie in scratch, and how many bytes of them: groups that are wider are not unpacked. */
const UNPACKED_AT = 32 * 1024;
const UNPACKED_BYTES = 400 * 1024;

/** How weights are read that tiles of several rows want unpacked. */
export interface Unpacking {
  /** The inner kernel for one row, on weights as they are stored. */
  readonly direct: Func;
  /** unpack(w, to, count): `count` steps of groups, each of which becomes `steps` steps and `bytes` bytes for tiles. */
  readonly unpack: Func;
  readonly steps: number;
  readonly bytes: number;
}

/**
 * Exports the step kernel `matmul_NAME`. `tile` adds an inner kernel for a shape to the module: the machine's best tile,
 * and those of one and two tokens for what is left of the rows and for decoding. With `unpacking` all of them read unpacked
 * weights, and rows that are too few for that are done one by one.
 */
export function matmulKernel(
  module: Module,
  name: string,
  best: TileShape,
  tile: (shape: TileShape) => Func,
  unpacking?: Unpacking,
): Func {
  const sizes = [best, { tokens: 2, lanes: best.lanes }, { tokens: 1, lanes: 16 as const }].filter(
    (shape, i, all) => all.findIndex((other) => other.tokens === shape.tokens) === i,
  );
  const tiles = sizes.map((shape) => ({ tokens: shape.tokens, f: tile(shape) }));
  const finish = epilogue(module, name);
  const f = module.func(`matmul_${name}`, ['i32', 'i32', 'i32']);
  const [record, thread, threads] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2)];
  const argument = (of: (typeof matmulRecord.names)[number]): Local<'i32'> => {
    const local = f.local('i32');
    f.emit(local.set(matmulRecord.load(record, of)));
    return local;
  };
  const [x, xStride, w, groupBytes, bias, out] = [
    argument('x'),
    argument('xStride'),
    argument('w'),
    argument('groupBytes'),
    argument('bias'),
    argument('out'),
  ];
  const [outStride, steps, groups, block, addOld] = [
    argument('outStride'),
    argument('steps'),
    argument('groups'),
    argument('blockGroups'),
    argument('add'),
  ];
  const [rows, end, group, count] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const [row, left, width, from] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const tileSteps = unpacking ? f.local('i32') : steps;
  const share = (n: I32): I32 =>
    divideUnsigned(columnShare(multiply(groups.get, constant(LANES)), n, threads.get), constant(LANES));
  const lines = (n: I32): I32 => multiply(n, constant(LANES * 4));
  const biasHere = (): I32 => multiply(notEqual(bias.get, constant(0)), add(bias.get, lines(group.get)));

  const run = ({ tokens, f: kernel }: { tokens: number; f: Func }, along = tileSteps): Statement[] => [
    call(
      kernel,
      add(x.get, multiply(row.get, xStride.get)),
      xStride.get,
      from.get,
      module.scratch,
      width.get,
      along.get,
      count.get,
    ),
    call(
      finish,
      module.scratch,
      add(add(out.get, multiply(row.get, outStride.get)), lines(group.get)),
      outStride.get,
      biasHere(),
      addOld.get,
      constant(tokens),
      count.get,
    ),
    left.set(subtract(left.get, constant(tokens))),
    row.set(add(row.get, constant(tokens))),
  ];
  const largestFitting = (index: number): Statement[] =>
    index === tiles.length - 1
      ? run(tiles[index]!)
      : [
          when(
            not(lessUnsigned(left.get, constant(tiles[index]!.tokens))),
            run(tiles[index]!),
            largestFitting(index + 1),
          ),
        ];
  const allRows = (body: readonly Statement[]): Statement[] => [
    row.set(constant(0)),
    left.set(rows.get),
    doWhile(left.get, ...body),
  ];
  const product = (): Statement[] => {
    if (!unpacking) return allRows(largestFitting(0));
    const { direct, unpack, bytes } = unpacking;
    const area = add(module.scratch, constant(UNPACKED_AT));
    const all = multiply(steps.get, count.get);
    const tooFew = lessUnsigned(rows.get, constant(best.tokens));
    const tooWide = lessUnsigned(constant(UNPACKED_BYTES), multiply(all, constant(bytes)));
    const unpacked = [
      call(unpack, from.get, area, all),
      from.set(area),
      tileSteps.set(multiply(steps.get, constant(unpacking.steps))),
      ...allRows(largestFitting(0)),
    ];
    return [when(or(tooFew, tooWide), allRows(run({ tokens: 1, f: direct }, steps)), unpacked)];
  };

  return f.emit(
    rows.set(loadI32(matmulRecord.load(record, 'rows'))),
    group.set(share(thread.get)),
    end.set(share(add(thread.get, constant(1)))),
    when(and(notEqual(rows.get, constant(0)), lessUnsigned(group.get, end.get)), [
      doWhile(
        lessUnsigned(group.get, end.get),
        count.set(smaller(block.get, subtract(end.get, group.get))),
        width.set(lines(count.get)),
        from.set(add(w.get, multiply(group.get, groupBytes.get))),
        ...product(),
        group.set(add(group.get, count.get)),
      ),
    ]),
  );
}

/** finish(sums, out, outStride, bias, add, tokens, groups): scratch to rows. */
function epilogue(module: Module, name: string): Func {
  const f = module.func(`finish_${name}`, ['i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32']);
  const [from, out, outStride, bias] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2), f.param('i32', 3)];
  const [addOld, tokens, groups] = [f.param('i32', 4), f.param('i32', 5), f.param('i32', 6)];
  const [token, group, to, b] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const values = f.array('v128', 4);
  const each = (value: (c: number) => Statement): Statement[] => values.map((_, c) => value(c));
  return f.emit(
    token.set(constant(0)),
    repeat(
      token,
      1,
      tokens.get,
      to.set(out.get),
      b.set(bias.get),
      group.set(constant(0)),
      repeat(
        group,
        1,
        groups.get,
        ...each((c) => values[c]!.set(v.load(from.get, c * 16))),
        when(bias.get, [
          ...each((c) => values[c]!.set(f32.add(values[c]!.get, v.load(b.get, c * 16)))),
          b.set(add(b.get, constant(LANES * 4))),
        ]),
        when(
          addOld.get,
          each((c) => values[c]!.set(f32.add(values[c]!.get, v.load(to.get, c * 16)))),
        ),
        ...each((c) => v.store(to.get, values[c]!.get, c * 16)),
        from.set(add(from.get, constant(LANES * 4))),
        to.set(add(to.get, constant(LANES * 4))),
      ),
      out.set(add(out.get, outStride.get)),
    ),
  );
}
