/** Node before 20.4 and older browsers lack the symbols that `using` looks for; imported before what defines methods by them. */
for (const name of ['dispose', 'asyncDispose'] as const)
  if (!Symbol[name]) Object.defineProperty(Symbol, name, { value: Symbol(`Symbol.${name}`) });
