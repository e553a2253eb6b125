export { type Column, renderTable } from '../report/aligned-table.ts';
