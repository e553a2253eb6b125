/** Entry file of a thread that converts pieces. */
import { parentPort } from 'node:worker_threads';
import { convertPiece, type Piece } from './convert-piece.ts';

parentPort!.on('message', (piece: Piece) => {
  const converted = convertPiece(piece);
  parentPort!.postMessage(converted, [converted.bytes.buffer as ArrayBuffer]);
});
