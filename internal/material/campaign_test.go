package material

import (
	"bytes"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"
)

// FAULTS row 17, CVE-2023-25000: does the time of combining shares tell what is in them? Two classes in random order,
// shares of zeroes and shares of random bytes; Welch's t-test over the times below the 90th percentile (Reparaz, Balasch,
// Verbauwhede 2017, "dudect"). A soak run on a quiet machine fails above 4.5; make test only reports, since a clock on a
// busy machine proves nothing.
func TestCampaignShamirTiming(t *testing.T) {
	soak := os.Getenv("KEYTURN_SOAK") != ""
	samples := 5_000
	if soak {
		samples = 500_000
	}
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 1))
	work := []Share{{1, New(make([]byte, 32))}, {2, New(make([]byte, 32))}, {3, New(make([]byte, 32))}}
	drawn := make([]byte, 96)
	zeroes := make([]byte, 96)
	var times [2][]float64
	for range 2 * samples {
		class := random.IntN(2)
		from := zeroes
		for i := range drawn { // drawn for both classes, so that both do the same before the clock starts
			drawn[i] = byte(random.Uint32())
		}
		if class == 1 {
			from = drawn
		}
		for i, s := range work {
			copy(s.Y.Expose(), from[i*32:])
		}
		start := time.Now()
		m, err := Combine(work)
		took := float64(time.Since(start))
		if err != nil || class == 0 && !bytes.Equal(m.Expose(), zeroes[:32]) {
			t.Fatal("combined wrongly", err)
		}
		times[class] = append(times[class], took)
	}
	score := math.Abs(welch(below90(times[0]), below90(times[1])))
	t.Logf("campaign: Shamir timing: seed %d, %d combinations, |t| = %.2f (rule: below 4.5)", seed, 2*samples, score)
	if soak && score >= 4.5 {
		t.Errorf("|t| = %.2f: the time tells the classes apart", score)
	}
}

// below90 drops what the scheduler did.
func below90(x []float64) []float64 {
	sorted := slices.Sorted(slices.Values(x))
	return sorted[:len(sorted)*9/10]
}

func welch(a, b []float64) float64 {
	meanA, varA := moments(a)
	meanB, varB := moments(b)
	spread := math.Sqrt(varA/float64(len(a)) + varB/float64(len(b)))
	if spread == 0 {
		return 0
	}
	return (meanA - meanB) / spread
}

func moments(x []float64) (mean, variance float64) {
	for _, v := range x {
		mean += v / float64(len(x))
	}
	for _, v := range x {
		variance += (v - mean) * (v - mean) / float64(len(x)-1)
	}
	return mean, variance
}

// The test of the test: a difference that is there is seen, one that isn't is not.
func TestWelch(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	draw := func(shift float64) (x []float64) {
		for range 10_000 {
			x = append(x, 100+10*random.NormFloat64()+shift)
		}
		return x
	}
	if same := math.Abs(welch(draw(0), draw(0))); same > 4.5 {
		t.Errorf("equal classes score %.2f", same)
	}
	if other := math.Abs(welch(draw(0), draw(2))); other < 4.5 {
		t.Errorf("classes 2%% apart score %.2f", other)
	}
}
