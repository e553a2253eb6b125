/** Defines the symbols of `using` for Node before 20.4 and older browsers. Import before classes that use them. */
for (const name of ['dispose', 'asyncDispose'] as const)
  if (!Symbol[name]) Object.defineProperty(Symbol, name, { value: Symbol(`Symbol.${name}`) });
