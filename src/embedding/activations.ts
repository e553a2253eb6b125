/** Activation functions of torch.nn with default settings, in double precision, with the same bits on every machine. */
import { erfc, exp, log, tanh } from '../numbers.ts';

const sigmoid = (x: number): number => (x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x)));
/** ln(1 + e^x); x itself above 20, as in torch. */
const softplus = (x: number): number => (x > 20 ? x : log1p(exp(x)));
/** ln(1 + y) for y > 0. The division corrects the rounding of 1 + y. */
function log1p(y: number): number {
  const sum = 1 + y;
  return sum === 1 ? y : (log(sum) * y) / (sum - 1);
}
/** e^x - 1 for x <= 0, without loss near 0. */
function expm1(x: number): number {
  if (x < -0.25) return exp(x) - 1;
  let [term, sum] = [x, x];
  for (let n = 2; n < 16; n++) {
    term *= x / n;
    sum += term;
  }
  return sum;
}
const clamp = (x: number, low: number, high: number): number => Math.min(Math.max(x, low), high);
const SELU_SCALE = 1.0507009873554805;
const SELU_ALPHA = 1.6732632423543772;

/** By class name. */
export const activations: Readonly<Record<string, (x: number) => number>> = {
  Identity: (x) => x,
  Tanh: tanh,
  ReLU: (x) => Math.max(x, 0),
  ReLU6: (x) => clamp(x, 0, 6),
  LeakyReLU: (x) => (x > 0 ? x : 0.01 * x),
  GELU: (x) => (x * erfc(-x * Math.SQRT1_2)) / 2,
  Sigmoid: sigmoid,
  SiLU: (x) => x * sigmoid(x),
  Mish: (x) => x * tanh(softplus(x)),
  ELU: (x) => (x > 0 ? x : expm1(x)),
  CELU: (x) => (x > 0 ? x : expm1(x)),
  SELU: (x) => SELU_SCALE * (x > 0 ? x : SELU_ALPHA * expm1(x)),
  Softplus: softplus,
  LogSigmoid: (x) => (x < 0 ? x - log1p(exp(x)) : -log1p(exp(-x))),
  Softsign: (x) => x / (1 + Math.abs(x)),
  Tanhshrink: (x) => x - tanh(x),
  Softshrink: (x) => (x > 0.5 ? x - 0.5 : x < -0.5 ? x + 0.5 : 0),
  Hardshrink: (x) => (Math.abs(x) > 0.5 ? x : 0),
  Hardtanh: (x) => clamp(x, -1, 1),
  Hardsigmoid: (x) => clamp(x + 3, 0, 6) / 6,
  Hardswish: (x) => (x * clamp(x + 3, 0, 6)) / 6,
};

/** The function named by `torch.nn.X`, `torch.nn.modules.activation.X` or `torch.nn.modules.linear.Identity`. */
export function activationNamed(path: unknown): ((x: number) => number) | undefined {
  const [, name] = /^torch\.nn\.(?:modules\.(?:activation|linear)\.)?(\w+)$/.exec(String(path)) ?? [];
  return name !== undefined && Object.hasOwn(activations, name) ? activations[name] : undefined;
}
