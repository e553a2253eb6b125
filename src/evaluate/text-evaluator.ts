/** Computes texts for encoders: all rows of a text in one forward, which several texts may share. */
import { PAGE } from '../backend/backend.ts';
import { type Evaluation, Forwards } from './forwards.ts';

export class TextEvaluator extends Forwards {
  /** One forward, within `exclusive`. Row i of the results is token i of the concatenated texts. @param texts token ids */
  async forward(texts: readonly (readonly number[])[]): Promise<Evaluation> {
    let pageCount = 0;
    const pages = texts.map(({ length }) => Int32Array.from({ length: Math.ceil(length / PAGE) }, () => pageCount++));
    await this.backend.cache.ensure(pageCount);
    const batch = {
      tokens: Int32Array.from(texts.flat()),
      positions: Int32Array.from(texts.flatMap((ids) => [...ids.keys()])),
      sequences: Int32Array.from(texts.flatMap((ids, sequence) => ids.map(() => sequence))),
      pages,
      wanted: new Int32Array(0),
    };
    return this.run(batch, false);
  }
}
