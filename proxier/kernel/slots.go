package kernel

import (
	"errors"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Slots returns what a frontend has in the kernel, as a start of nftproxy would find it. It is a rules.Slots
// that asks for the elements of a frontend when they are needed. failed receives each error of the kernel.
func (q *Inquiry) Slots(failed func(error)) rules.Slots {
	return func(f service.Frontend) rules.Held {
		t, err := q.frontend(f)
		if err != nil {
			failed(err)
			return rules.Held{}
		}
		return rules.Programmed{service.FamilyOf(f.Addr): t}.Slots()(f)
	}
}

// frontend reads the elements that lead a frontend to its endpoints.
func (q *Inquiry) frontend(f service.Frontend) (*rules.TableState, error) {
	t := rules.NewTableState()
	owner, found, err := q.Element(nftables.FrontendElement(nftables.Services, f).ElementID)
	if err != nil || !found {
		return t, err
	}
	shape, found, err := q.Element(
		nftables.ShapeElement(service.FamilyOf(f.Addr), owner.DataValues().Class, "").ElementID)
	if err != nil || !found {
		return t, err
	}
	s, _ := rules.ParseShape(shape.Chain)
	var errs []error
	read := func(id nftables.ElementID) (nftables.Element, bool) {
		e, found, err := q.Element(id)
		if errs = append(errs, err); found {
			t.Elements[id] = e
		}
		return e, found
	}
	slots := func(n int, plain, sticky, backends nftables.SetKind) {
		for slot := range n {
			if s.Scheduler == service.RoundRobin {
				read(nftables.StickyBackendID(backends, f, nftables.Class(slot+1)))
			} else if s.Timeout == 0 {
				read(nftables.StickySlotElement(plain, f, slot, 0).ElementID)
			} else if e, ok := read(nftables.StickySlotElement(sticky, f, slot, 0).ElementID); ok {
				read(nftables.StickyBackendID(backends, f, e.DataValues().Class))
			}
		}
	}
	slots(s.N, nftables.Endpoints, nftables.StickySlots, nftables.StickyBackends)
	slots(s.Locals, nftables.LocalEndpoints, nftables.StickyLocalSlots, nftables.StickyLocalBackends)
	return t, errors.Join(errs...)
}
