// Package flame draws CPU profiles as flame graphs in SVG.
//
// Each box is a function, as wide as the CPU time of the function and of all that it calls.
// Callers are above what they call. The color tells whose code it is.
package flame
