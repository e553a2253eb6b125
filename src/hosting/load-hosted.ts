/** Loads a model whose engine runs in a separate thread, or in the calling thread if no thread can be started. */
import type { EncoderEngine } from '../engine/encoder-engine.ts';
import type { Engine } from '../engine/engine.ts';
import type { LoadOptions } from '../engine/options.ts';
import { type HostedSource, NotStarted } from './hosted-model.ts';
import { hostedEncoder } from './remote-encoder.ts';
import { hostedEngine } from './remote-engine.ts';

/** @param inline loads in the calling thread @throws OptionError, and what the load throws */
export const loadHosted = (
  source: HostedSource,
  options: LoadOptions,
  inline: () => Promise<Engine>,
): Promise<Engine> => orInline(() => hostedEngine(source, options), options, inline);

/** As `loadHosted`. */
export const loadHostedEncoder = (
  source: HostedSource,
  options: LoadOptions,
  inline: () => Promise<EncoderEngine>,
): Promise<EncoderEngine> => orInline(() => hostedEncoder(source, options), options, inline);

async function orInline<E>(hosted: () => Promise<E>, options: LoadOptions, inline: () => Promise<E>): Promise<E> {
  try {
    return await hosted();
  } catch (error) {
    if (!(error instanceof NotStarted)) throw error;
    options.onWarning?.(`the engine runs in the calling thread: ${error.message}`);
    return inline();
  }
}
