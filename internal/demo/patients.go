package demo

import (
	"fmt"
	"math/rand/v2"
)

// patient is a row of the clinic. Nobody of them exists: the numbers are of the range 900-999, which is never issued as a
// social security number, and the addresses of example.org.
type patient struct {
	id               int
	name, email, ssn string
	note             string
}

var (
	givenNames  = []string{"Ada", "Björn", "Chiara", "Dženana", "Émile", "Fatma", "Grzegorz", "Hana", "Íñigo", "Jüri", "Kōji", "Łucja", "Mei", "Nadia", "Olu", "Priya", "Quinn", "Rosa", "Søren", "Thảo", "Uma", "Vĩnh", "Wanjiru", "Ximena", "Yusuf", "Zoë"}
	familyNames = []string{"Abrantes", "Bergström", "Castellanos", "Demir", "Eriksen", "Fabre", "Gómez", "Hoang", "Ibekwe", "Jansen", "Kowalczyk", "Lindqvist", "Mwangi", "Nowak", "Okafor", "Petrov", "Quispe", "Rahman", "Sato", "Tanaka", "Ueda", "Vargas", "Weiß", "Xu", "Yılmaz", "Zieliński"}
	notes       = []string{"Seasonal allergy; loratadine 10 mg.", "Ankle sprain, left. Rest, ice, review in 10 days.", "Blood pressure 128/82 — fine.", "Migraine with aura, 2× a month.", "Vaccination: tetanus booster given.", "Type 2 diabetes, HbA1c 6.9 %.", "Recovering well after appendectomy 🙂", "Asks for results by post only."}
)

// invent makes patient id the same way every time, so that a comparison at the end needs no copy of the table.
func invent(id int) patient {
	r := rand.New(rand.NewPCG(uint64(id), 0x70617469656e74))
	given, family := givenNames[r.IntN(len(givenNames))], familyNames[r.IntN(len(familyNames))]
	return patient{
		id:    id,
		name:  given + " " + family,
		email: fmt.Sprintf("patient%d@example.org", id),
		ssn:   number(r),
		note:  notes[r.IntN(len(notes))],
	}
}

// number is a nine-digit number that can't be anybody's.
func number(r *rand.Rand) string {
	return fmt.Sprintf("9%02d-%02d-%04d", r.IntN(100), 1+r.IntN(99), 1+r.IntN(9999))
}
