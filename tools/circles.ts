/** Finds circles in a graph. */

/** Each circle as the path from a node back to itself. */
export function circlesOf(imports: ReadonlyMap<string, readonly string[]>): string[][] {
  const circles: string[][] = [];
  const left = new Set<string>();
  const visit = (node: string, above: readonly string[]): void => {
    const start = above.indexOf(node);
    if (start >= 0) circles.push([...above.slice(start), node]);
    if (start >= 0 || left.has(node)) return;
    for (const next of imports.get(node) ?? []) visit(next, [...above, node]);
    left.add(node);
  };
  for (const node of imports.keys()) visit(node, []);
  return circles;
}
