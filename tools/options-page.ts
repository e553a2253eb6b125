/** Writes docs/options.md: `node tools/options-page.ts`. A test checks that the page is current. */
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { flagName } from '../src/cli/terminal.ts';
import { generateTable, optionNames } from '../src/schedule/generation-options.ts';

export function optionsPage(): string {
  const rows = optionNames.map((name) => {
    const { help, expected, standard = '', flag } = generateTable[name];
    const shown = flag === undefined ? '' : `\`${flagName(flag.name ?? name)}\``;
    return `| \`${name}\` | ${shown} | ${help} | ${expected} | ${standard} |`;
  });
  return `# Options of a generation

The options of \`complete\`, \`generate\`, \`generateBatch\`, \`generateStream\` and \`Conversation.generate\`; of the command line, where
there is a flag; and of the lines of a \`--batch-file\`. What is left out, undefined or null has its default.
[generation.md](generation.md) tells what they do together.

Written by \`node tools/options-page.ts\`.

| option | flag | what it does | values | default |
| --- | --- | --- | --- | --- |
${rows.join('\n')}
`;
}

if (import.meta.main) writeFileSync(path.join(import.meta.dirname, '../docs/options.md'), optionsPage());
