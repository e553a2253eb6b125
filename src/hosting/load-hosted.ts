/** Loads a model whose engine has a thread of its own, or, where none can be started, one that runs in the calling thread. */
import type { Engine } from '../engine/engine.ts';
import type { LoadOptions } from '../engine/options.ts';
import { type HostedSource, hostedEngine, NotStarted } from './remote-engine.ts';

/** @param inline loads in the calling thread @throws OptionError, and what the load throws */
export async function loadHosted(
  hosted: HostedSource,
  options: LoadOptions,
  inline: () => Promise<Engine>,
): Promise<Engine> {
  try {
    return await hostedEngine(hosted, options);
  } catch (error) {
    if (!(error instanceof NotStarted)) throw error;
    options.onWarning?.(`the engine runs in the calling thread: ${error.message}`);
    return inline();
  }
}
