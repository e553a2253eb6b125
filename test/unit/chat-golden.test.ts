import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { ChatTemplate, type Message, type Tool } from '../../src/chat/template.ts';
import { TemplateError } from '../../src/errors.ts';

interface Case {
  readonly template: string;
  readonly case: string;
  readonly messages: Message[];
  readonly options: Record<string, unknown>;
  readonly bos_token: string | null;
  readonly eos_token: string | null;
  readonly output?: string;
  readonly error?: string;
  readonly error_type?: string;
}

const golden = (name: string): string => readFileSync(new URL(`../golden/chat/${name}`, import.meta.url), 'utf8');
const { now, cases } = JSON.parse(golden('cases.json')) as { now: string; cases: Case[] };

for (const name of new Set(cases.map(({ template }) => template))) {
  test(`${name}.jinja renders as transformers renders it`, async (t) => {
    const template = new ChatTemplate(golden(`${name}.jinja`));
    for (const one of cases.filter((one) => one.template === name)) {
      await t.test(one.case, () => {
        const { tools, add_generation_prompt, continue_final_message, ...variables } = one.options as {
          tools?: Tool[];
          add_generation_prompt?: boolean;
          continue_final_message?: boolean;
        };
        const render = () =>
          template.render(one.messages, {
            tools,
            addGenerationPrompt: add_generation_prompt,
            continueFinalMessage: continue_final_message,
            bosToken: one.bos_token,
            eosToken: one.eos_token,
            now: new Date(now),
            variables,
          });
        if (one.error === undefined) {
          const { text, parts } = render();
          assert.equal(text, one.output);
          assert.equal(parts.map((part) => part.text).join(''), text);
          return;
        }
        const expected = one.error_type === 'TemplateError' ? { code: 'Raised', message: one.error } : TemplateError;
        assert.throws(render, expected);
      });
    }
  });
}
