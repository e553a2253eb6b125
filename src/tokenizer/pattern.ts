/**
 * A backtracking matcher with Oniguruma's semantics: the first alternative that matches wins. Patterns come from untrusted
 * files, so steps are counted, and a pattern that needs more than a fixed number per character is refused; JavaScript's own
 * engine could run without end. A repeated character set needs no stack, however long the match is.
 */
import { TokenizerError } from '../errors.ts';
import type { CharSet } from './char-set.ts';
import { type PatternNode, PatternSyntaxError, parsePattern, startOfCharacter } from './pattern-syntax.ts';

/** Steps per character of text. Patterns in use need fewer than 20. */
const STEPS_PER_CHARACTER = 400;
const LEAST_STEPS = 100_000;
/** Most repetitions of a group per match, as each needs stack. A longer run is matched in several parts. */
const MOST_GROUP_REPEATS = 500;

/** End of the match at an index, or -1. */
type Matcher = (index: number) => number;

export class Pattern {
  readonly source: string;
  readonly #match: Matcher;
  #text = '';
  #steps = 0;

  /**
   * @param where named in errors
   * @throws TokenizerError for unsupported syntax
   */
  constructor(source: string, where: string) {
    this.source = source;
    try {
      this.#match = this.#compile(parsePattern(source), (index) => index);
    } catch (error) {
      if (error instanceof PatternSyntaxError)
        throw new TokenizerError(where, `pattern not supported: ${error.message}`);
      throw error;
    }
  }

  /**
   * Calls `found` for every match, from left to right, without overlaps. `found` must not use this pattern.
   * @throws TokenizerError if the pattern needs too many steps
   */
  forEach(text: string, found: (start: number, end: number) => void): void {
    this.#text = text;
    this.#steps = STEPS_PER_CHARACTER * text.length + LEAST_STEPS;
    for (let at = 0; at < text.length; ) {
      const end = this.#match(at);
      if (end >= 0) found(at, end);
      at = end > at ? end : at + (text.codePointAt(at)! > 0xffff ? 2 : 1);
    }
    this.#text = '';
  }

  #spend(steps: number): void {
    this.#steps -= steps;
    if (this.#steps < 0) {
      const what = `the pattern ${JSON.stringify(this.source.slice(0, 100))} takes more than ${STEPS_PER_CHARACTER} steps`;
      throw new TokenizerError('tokenizer', `${what} per character of this text`);
    }
  }

  /** Continuation passing: `next` matches what follows `node`. */
  #compile(node: PatternNode, next: Matcher): Matcher {
    switch (node.kind) {
      case 'set': {
        const { set } = node;
        return (i) => {
          const units = set.at(this.#text, i);
          return units ? next(i + units) : -1;
        };
      }
      case 'sequence':
        return node.items.reduceRight((rest, item) => this.#compile(item, rest), next);
      case 'choice':
        return this.#compileChoice(node.options, next);
      case 'atomic': {
        const inside = this.#compile(node.item, (i) => i);
        return (i) => {
          const end = inside(i);
          return end < 0 ? -1 : next(end);
        };
      }
      case 'ahead': {
        const inside = this.#compile(node.item, (i) => i);
        return (i) => (inside(i) < 0 === node.negative ? next(i) : -1);
      }
      case 'behind':
        return (i) => {
          const found = i > 0 && node.set.at(this.#text, startOfCharacter(this.#text, i)) > 0;
          return found === node.negative ? -1 : next(i);
        };
      case 'anchor':
        return (i) => (node.holds(this.#text, i) ? next(i) : -1);
      case 'repeat':
        return this.#compileRepeat(node, next);
    }
  }

  #compileChoice(options: readonly PatternNode[], next: Matcher): Matcher {
    const matchers = options.map((option) => this.#compile(option, next));
    // For each ASCII character, the alternatives that can begin with it.
    const byFirst = Array.from({ length: 128 }, (_, unit) =>
      matchers.filter((_, i) => canBegin(options[i]!, String.fromCharCode(unit)) !== 'no'),
    );
    return (i) => {
      const unit = this.#text.charCodeAt(i);
      const possible = unit < 128 ? byFirst[unit]! : matchers;
      this.#spend(1);
      for (let m = 0; m < possible.length; m++) {
        const end = possible[m]!(i);
        if (end >= 0) return end;
      }
      return -1;
    };
  }

  #compileRepeat(node: PatternNode & { kind: 'repeat' }, next: Matcher): Matcher {
    const { item, mode } = node;
    if (mode === 'possessive') {
      const inside = this.#compile({ ...node, mode: 'greedy' }, (i) => i);
      return (i) => {
        const end = inside(i);
        return end < 0 ? -1 : next(end);
      };
    }
    if (item.kind !== 'set') return this.#compileGroupRepeat(node, next);
    return mode === 'greedy'
      ? this.#greedySet(item.set, node.min, node.max, next)
      : this.#lazySet(item.set, node.min, node.max, next);
  }

  #greedySet(set: CharSet, min: number, max: number, next: Matcher): Matcher {
    return (start) => {
      const text = this.#text;
      let [at, count] = [start, 0];
      while (count < max) {
        const units = set.at(text, at);
        if (units === 0) break;
        at += units;
        count++;
      }
      if (count < min) return -1;
      this.#spend(count + 1);
      for (;;) {
        const end = next(at);
        if (end >= 0 || count === min) return end;
        this.#spend(1);
        at = startOfCharacter(text, at);
        count--;
      }
    };
  }

  #lazySet(set: CharSet, min: number, max: number, next: Matcher): Matcher {
    return (start) => {
      let at = start;
      for (let count = 0; ; count++) {
        this.#spend(1);
        if (count >= min) {
          const end = next(at);
          if (end >= 0) return end;
        }
        const units = count < max ? set.at(this.#text, at) : 0;
        if (units === 0) return -1;
        at += units;
      }
    };
  }

  #compileGroupRepeat({ item, min, max, mode }: PatternNode & { kind: 'repeat' }, next: Matcher): Matcher {
    const most = Math.min(max, Math.max(min, MOST_GROUP_REPEATS));
    let count = 0;
    let begun = -1;
    const again: Matcher = (i) => {
      this.#spend(1);
      const [outerCount, outerBegun] = [count, begun];
      // An empty repetition would repeat without end.
      if (i === begun && count > min) return -1;
      const more = (): number => {
        if (outerCount >= most) return -1;
        [count, begun] = [outerCount + 1, i];
        const end = body(i);
        [count, begun] = [outerCount, outerBegun];
        return end;
      };
      const leave = (): number => {
        if (outerCount < min) return -1;
        const end = next(i);
        [count, begun] = [outerCount, outerBegun];
        return end;
      };
      const first = mode === 'greedy' ? more() : leave();
      if (first >= 0) return first;
      return mode === 'greedy' ? leave() : more();
    };
    const body = this.#compile(item, again);
    return (i) => {
      const [outerCount, outerBegun] = [count, begun];
      [count, begun] = [0, -1];
      const end = again(i);
      [count, begun] = [outerCount, outerBegun];
      return end;
    };
  }
}

/** Whether a match can begin with a character: no, only if the node matches nothing (`empty`), or perhaps. */
function canBegin(node: PatternNode, character: string): 'no' | 'empty' | 'perhaps' {
  switch (node.kind) {
    case 'set':
      return node.set.at(character, 0) ? 'perhaps' : 'no';
    case 'sequence':
      for (const item of node.items) {
        const answer = canBegin(item, character);
        if (answer !== 'empty') return answer;
      }
      return 'empty';
    case 'choice': {
      const answers = node.options.map((option) => canBegin(option, character));
      return answers.includes('perhaps') ? 'perhaps' : answers.includes('empty') ? 'empty' : 'no';
    }
    case 'repeat': {
      const answer = canBegin(node.item, character);
      return node.min === 0 && answer === 'no' ? 'empty' : answer;
    }
    case 'atomic':
      return canBegin(node.item, character);
    default:
      return 'empty';
  }
}
