/** The backend's surroundings in a browser: no flags, and one thread until workers are started there too. */
import type { WasmHost } from './host.ts';

export function browserHost(): WasmHost {
  const reason = 'worker threads are not used in browsers yet';
  return {
    cores: 1,
    threads: { possible: false, reason },
    widens: false,
    compile: (bytes) => new WebAssembly.Module(bytes),
    spawn() {
      throw new Error(reason);
    },
  };
}
