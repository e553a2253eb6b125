/** Collects the kernels of one plan: each is emitted once, and each family is compiled into one module. */
import { walker } from '../../../kernels/walker.ts';
import { type Func, Module } from '../../../wasm/assembler.ts';
import { controlAddress } from '../memory/shared-words.ts';
import type { WasmHost } from '../threads/host.ts';
import type { ThreadSetup } from '../threads/thread-setup.ts';

export type CompiledKernels = Pick<ThreadSetup, 'modules' | 'kernels' | 'walker'>;

export class KernelSet {
  readonly #modules = new Map<string, Module>();
  readonly #kernels: { readonly module: number; readonly name: string }[] = [];
  readonly #indices = new Map<string, number>();

  /** Table index of the step kernel `key`; `emit` adds it to the family's module when it is first needed. */
  index(family: string, key: string, emit: (module: Module) => Func): number {
    const known = this.#indices.get(`${family}/${key}`);
    if (known !== undefined) return known;
    let module = this.#modules.get(family);
    if (!module) this.#modules.set(family, (module = new Module()));
    const name = emit(module).name;
    const index = this.#kernels.push({ module: [...this.#modules.keys()].indexOf(family), name }) - 1;
    this.#indices.set(`${family}/${key}`, index);
    return index;
  }

  /** Family of the kernel at an index of the table: `matmul_q8_0`, `norm`. */
  family(index: number): string {
    const [name = ''] = [...this.#indices].find(([, found]) => found === index) ?? [];
    return name.slice(0, name.indexOf('/'));
  }

  /** @param memory limits of the memory that the modules will import */
  compile(host: WasmHost, wide: boolean, memory: { maximum: number; shared: boolean }): CompiledKernels {
    const walking = new Module();
    walker(walking, controlAddress);
    const modules = [...this.#modules.values(), walking].map((module) => host.compile(module.encode(memory), { wide }));
    return { modules, kernels: this.#kernels, walker: modules.length - 1 };
  }
}
